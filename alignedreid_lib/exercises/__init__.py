"""Exercises that answer back: a reader's function is compared with the right one and with typical mistakes."""

from alignedreid_lib.exercises.checking import Answer, Exercise, check, judge

__all__ = ["Answer", "Exercise", "check", "judge"]
