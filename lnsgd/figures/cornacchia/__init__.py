"""Figures of Cornacchia, Hązła, Nachum and Yehudayoff (2021)."""
