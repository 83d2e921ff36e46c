"""Errors in one line, from texts of jsonargparse and of plain exceptions."""

import pytest

import lnsgd.losses  # noqa: F401  (a class that is not imported is not offered)
from lnsgd.console.messages import one_line

# A wrong value of an option at the top of the config.
WRONG_TYPE = """\
Parser key "trainer.max_epochs":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'int'>, <class 'NoneType'>]
  Errors:
    - Expected a <class 'int'>
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: abc"""

# A wrong choice, nested in a class.
WRONG_CHOICE = """\
Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'pytorch_lightning.core.module.LightningModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'lnsgd.modules.Classifier':
        Parser key "net":
          Problem with given class_path 'lnsgd.models.MLP':
            Parser key "activation":
              Expected a typing.Literal['relu', 'tanh', 'logistic', 'cubic']. Got value: relo
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='net.activation', val='relo')"""

UNKNOWN_CLASS = """\
Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'pytorch_lightning.core.module.LightningModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'lnsgd.modules.Classifier':
        Parser key "loss":

          - Expected a path but Hinge either not accessible or invalid
          - Does not validate against any of the Union subtypes
          Subtypes: [<class 'lnsgd.losses.Loss'>, <class 'NoneType'>]
          Errors:
            - Expected a dot import path string: Hinge
            - Expected a <class 'NoneType'>
          Given value type: <class 'str'>
          Given value: Hinge
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='loss', val='Hinge')"""

# A wrong value inside an optimizer, which jsonargparse reports as a value that is not a callable.
WRONG_TYPE_IN_OPTIMIZER = """\
Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'pytorch_lightning.core.module.LightningModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'lnsgd.modules.Classifier':
        Parser key "optimizer":
          Type typing.Callable[[collections.abc.Iterable], torch.optim.optimizer.Optimizer] expects a function or a \
callable class: Parser key "lr":

            - Expected a path but fast either not accessible or invalid
            - Does not validate against any of the Union subtypes
            Subtypes: [<class 'float'>, <class 'torch.Tensor'>]
            Errors:
              - Expected a <class 'float'>
              - Expected a dot import path string: fast
            Given value type: <class 'str'>
            Given value: fast. Got value: Namespace(class_path='torch.optim.SGD', init_args=Namespace(lr='fast'))
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='optimizer.lr', val='fast')"""


def unknown_option(name: str, class_path: str = "lnsgd.data.MNIST") -> str:
    return f"""\
Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'pytorch_lightning.core.datamodule.LightningDataModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path '{class_path}':
        Option '{name}' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='{name}', val='3')"""


LINES = {
    "wrong-type": (WRONG_TYPE, "trainer.max_epochs = abc: expected int"),
    "wrong-choice": (WRONG_CHOICE, "model.net.activation = relo: expected relu or tanh or logistic or cubic"),
    "unknown-class": (
        UNKNOWN_CLASS,
        "model.loss = Hinge: expected the name or import path of a class (did you mean 'HingeLoss'?)",
    ),
    "missing-file": ("Parser key \"config\": File does not exist: 'x.yaml'", "config: File does not exist: 'x.yaml'"),
    "unknown-option-at-top": (
        "unrecognized arguments: --trianer.max_epochs 3",
        "there is no option --trianer.max_epochs; `lnsgd fit --help-all` lists them",
    ),
    "plain": ("subset = 0; give 1 to 100", "subset = 0; give 1 to 100"),
    "white-space": ("two  spaces\tand a tab ", "two spaces and a tab"),
    "first-line-of-many": ("the cause\nwhere it was seen\n", "the cause"),
}


@pytest.mark.parametrize(("text", "line"), LINES.values(), ids=LINES)
def test_line(text: str, line: str) -> None:
    assert one_line(ValueError(text)) == line


def test_value_inside_an_optimizer() -> None:
    line = one_line(ValueError(WRONG_TYPE_IN_OPTIMIZER))
    assert line.startswith("model.optimizer.lr = fast: expected ")
    assert "float" in line


@pytest.mark.parametrize("text", [text for text, _ in LINES.values()], ids=LINES)
def test_no_line_breaks(text: str) -> None:
    assert "\n" not in one_line(ValueError(text))


HINTS = {
    # A parameter of the class itself, one of its base's (passed on as **options), and none that is close.
    "own": ("sorce", "data: lnsgd.data.MNIST has no option 'sorce'; did you mean 'source'?"),
    "inherited": ("batchsize", "data: lnsgd.data.MNIST has no option 'batchsize'; did you mean 'batch_size'?"),
    "nested": ("sourse.path", "data: lnsgd.data.MNIST has no option 'sourse'; did you mean 'source'?"),
}


@pytest.mark.parametrize(("option", "line"), HINTS.values(), ids=HINTS)
def test_hint(option: str, line: str) -> None:
    assert one_line(ValueError(unknown_option(option))) == line


def test_without_a_similar_name_all_are_listed() -> None:
    line = one_line(ValueError(unknown_option("q", "lnsgd.label_noise.UniformNoise")))
    assert line == "data: lnsgd.label_noise.UniformNoise has no option 'q'; it takes: p"


OPTIONS = ["--config", "--model", "--trainer.max_epochs", "--trainer.max_steps"]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("--trianer.max_epochs 3", "--trainer.max_epochs"),
        ("--max_step 3", "--trainer.max_steps"),
        ("--modle.net.widths 3", "--model"),
        ("--q 3", None),
    ],
)
def test_misspelled_option_gets_the_nearest(wrong: str, meant: str | None) -> None:
    line = one_line(ValueError(f"unrecognized arguments: {wrong}"), lambda: OPTIONS)
    hint = f" (did you mean {meant!r}?)" if meant else ""
    assert line == f"there is no option {wrong.split()[0]}{hint}; `lnsgd fit --help-all` lists them"


@pytest.mark.parametrize(
    "whose", ["Subcommand 'fit' does not accept option 'trainer.", "Group 'trainer' does not accept option '"]
)
def test_misspelled_option_in_a_config_gets_the_nearest(whose: str) -> None:
    line = one_line(ValueError(f"{whose}max_epoch'"), lambda: OPTIONS)
    assert line.startswith("there is no option --trainer.max_epoch (did you mean '--trainer.max_epochs'?)")


def test_parameters_that_are_not_passed_on_are_not_offered() -> None:
    """`SquaredLoss` has one parameter, which is all that is offered."""
    line = one_line(ValueError(unknown_option("zzz", "lnsgd.losses.SquaredLoss")))
    assert line.endswith("it takes: reduction")


def test_class_without_parameters() -> None:
    assert one_line(ValueError(unknown_option("p", "lnsgd.label_noise.NoNoise"))).endswith("it takes: none")


def test_error_without_text_is_named() -> None:
    assert one_line(KeyError()) == "KeyError"
