"""What TorchInductor needs on this machine."""


def check_cxx_compiler(remedy: str) -> None:
    """Raises ValueError where TorchInductor finds no C++ compiler.

    Args:
        remedy: What to do in place of installing one.
    """
    # Imported here because they take a second.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ValueError(f"no C++ compiler; install g++, or {remedy}") from None
