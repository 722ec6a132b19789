"""The scores of the built-in evaluators of values, numbers, JSON and text."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.evaluators import (
    choice_match,
    close_to,
    contains,
    exact_match,
    json_match,
    numeric_match,
    regex_match,
    valid_json,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class TestExactMatch:
    @pytest.mark.parametrize(
        ("result", "expected", "value"),
        [
            ("1", "1", True),
            ("Hello", "hello", False),
            ("a ", "a", False),
            (1, 1.0, True),
            (None, None, True),
            (None, "", False),
            ([1], (1,), False),
        ],
    )
    def test_plain_equality(self, result, expected, value):
        assert exact_match(result, expected).value is value

    def test_a_type_with_its_own_equality(self):
        class Always:
            __hash__ = None

            def __eq__(self, other):
                return True

        assert exact_match(Always(), "anything").value is True


class TestNumericMatch:
    @pytest.mark.parametrize(
        ("result", "expected"),
        [
            (42, "42"),
            ("3.14", 3.14),
            ("1,234,567", "1234567"),
            ("1 234.56", "1,234.56"),
            ("1.23E3", "1230"),
            ("1.23e-3", "0.00123"),
            ("12.00", "12"),
            ("  42\n", "42"),
            ("-42", -42),
            (math.inf, math.inf),
            ("\u221242", "-42"),
            ("1e\u22125", 0.00001),
            ("－１，２３４．５", -1234.5),
            ("12,34,567", 1234567),
            ("1\u202f234\u202f567", "1234567"),
            ("1_000", 1000),
            ("9007199254740993", 9007199254740993),
            ("1" * 5000, int("1" * 4000) * 10**1000 + int("1" * 1000)),
            ("0.1000000000000000000000000000000000001", 0.1),
            (math.pi, "3.14159265358979323846"),
            (numpy.float32(0.1), "0.1"),
            (numpy.int64(3), Decimal("3.00")),
        ],
        ids=lambda value: str(value)[:20] if isinstance(value, str) else type(value).__name__,
    )
    def test_the_same_number(self, result, expected):
        assert numeric_match(result, expected).value is True
        assert numeric_match(expected, result).value is True

    @pytest.mark.parametrize(
        "nothing",
        [
            *(math.nan, "nan", "sNaN", None, "", " ", "$5", "50%", "abc", "- 42", "1.2.3", [1], True),
            *(
                "1,2,3",
                "1 2 3",
                "1, 2",
                "1,23",
                "0,123",
                "1,2345",
                "1234,567",
                "1,234,56",
                "1,234.567,890",
                "1 234,567",
            ),
            *("1_2_3", "\u2212", "1\u22122", "1e999999999999999999999"),
        ],
    )
    def test_a_value_that_is_not_a_number_matches_nothing(self, nothing):
        assert numeric_match(nothing, nothing).value is False
        assert numeric_match(nothing, 5).value is False

    @pytest.mark.parametrize(
        ("result", "expected"),
        [
            ("42", "43"),
            ("9007199254740993", "9007199254740992"),
            (9007199254740993, "9007199254740992"),
            ("1333335333334000000", "1333335333334000100"),
            ("1e400", "1e500"),
            ("1e-400", "0"),
            ("0.1", "0.1000000000000000000000000000000000001"),
            ("inf", "1e400"),
            ("inf", "-inf"),
            (0.1 + 0.2, "0.3"),
        ],
    )
    def test_different_numbers(self, result, expected):
        assert numeric_match(result, expected).value is False
        assert numeric_match(expected, result).value is False

    @given(st.integers(), st.integers(-2, 2))
    def test_integers_of_any_length_are_exact(self, number, difference):
        number *= 10**30
        other = number + difference
        assert numeric_match(str(number), f"{other:,}").value is (difference == 0)
        assert numeric_match(number, str(other)).value is (difference == 0)

    @given(st.floats(allow_nan=False))
    def test_the_text_of_a_float_is_that_float(self, number):
        assert numeric_match(repr(number), number).value is True
        assert numeric_match(f"{number:.60g}", number).value is True

    @given(st.integers(-(10**15), 10**15))
    def test_thousands_separators(self, number):
        assert numeric_match(f"{number:,}", str(number)).value is True


class TestCloseTo:
    def test_tolerances(self):
        assert close_to("1,000.0001", 1000).value is True
        assert close_to(1000.1, 1000).value is False
        assert close_to(1000.1, 1000, rel_tol=1e-3).value is True
        assert close_to(0.0, 1e-9).value is False
        assert close_to(0.0, 1e-9, abs_tol=1e-6).value is True
        assert close_to(None, 0, abs_tol=1).value is False
        assert close_to("3.1", 3.0, abs_tol=0.1).value is True

    def test_numbers_that_no_float_can_tell_apart(self):
        assert close_to("9007199254740993", "9007199254740992", rel_tol=0, abs_tol=0.5).value is False
        assert close_to("9007199254740993", "9007199254740992", rel_tol=0, abs_tol=1).value is True
        assert close_to("1e400", "1e500").value is False
        assert close_to("1e400", "1.0000001e400").value is True
        assert close_to("1e-400", "2e-400", abs_tol=0, rel_tol=0.1).value is False

    def test_infinity_is_close_to_itself_only(self):
        assert close_to("inf", math.inf).value is True
        assert close_to("inf", "-inf", abs_tol=math.inf).value is False
        assert close_to("inf", 1e308, rel_tol=1).value is False

    def test_a_negative_tolerance_is_refused(self):
        for tolerance in ({"rel_tol": -1}, {"abs_tol": -1}, {"rel_tol": math.nan}):
            with pytest.raises(ValueError, match="negative"):
                close_to(1, 1, **tolerance)


class TestValidJson:
    @pytest.mark.parametrize("text", ['{"key": "value"}', "[]", "null", " 42 ", '"🎉"', b"[1]"])
    def test_json(self, text):
        assert valid_json(text).value is True

    @pytest.mark.parametrize("text", ['{"score": NaN}', "[Infinity]", "-Infinity", "NaN", b'[{"a": [-Infinity]}]'])
    def test_nan_and_infinity_are_no_json(self, text):
        for score in (valid_json(text), valid_json(text, {"type": ["object", "array", "number"]})):
            assert score.value is False
            assert "is not a value of JSON" in score.metadata["reason"]
        assert json_match(text, text).value is False

    @pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "undefined", '{"a": 1,}', None, {"a": 1}, "[" * 100_000])
    def test_text_that_is_not_json(self, text):
        score = valid_json(text)
        assert score.value is False
        assert score.metadata["reason"]

    @given(JSON)
    def test_the_output_of_the_standard_library_is_json(self, value):
        assert valid_json(json.dumps(value)).value is True

    SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}  # noqa: RUF012

    def test_a_schema(self):
        assert valid_json('{"name": "Alice"}', self.SCHEMA).value is True
        missing = valid_json("{}", schema=self.SCHEMA)
        assert missing.value is False
        assert "'name' is a required property" in missing.metadata["reason"]
        assert "$.name" in valid_json('{"name": 1}', self.SCHEMA).metadata["reason"]
        assert valid_json("{", self.SCHEMA).value is False

    def test_the_draft_of_the_schema_is_respected(self):
        old = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True}
        assert valid_json("1", old).value is False
        assert valid_json("2", old).value is True

    def test_an_invalid_schema_is_reported(self):
        score = valid_json("{}", {"type": "no such type"})
        assert score.value is False
        assert score.metadata["reason"].startswith("the schema is not valid")

    def test_references_are_not_fetched(self):
        score = valid_json("{}", {"$ref": "http://127.0.0.1:9/schema"})
        assert score.value is False
        assert "127.0.0.1:9" in score.metadata["reason"]

    def test_true_and_false_are_schemas(self):
        assert valid_json("1", True).value is True
        assert valid_json("1", False).value is False


class TestJsonMatch:
    @pytest.mark.parametrize(
        ("result", "expected", "value"),
        [
            ('{"a": 1, "b": [2, 3]}', {"b": [2, 3.0], "a": 1}, True),
            ('{"a": 1}', '{"a": 1, "b": 2}', False),
            ("[1, 2]", "[2, 1]", False),
            ("true", "1", False),
            ("[true]", [1], False),
            ("{", "{", False),
            ("null", None, True),
            ('"a"', '"b"', False),
        ],
    )
    def test_values(self, result, expected, value):
        assert json_match(result, expected).value is value

    @pytest.mark.parametrize(
        ("result", "expected", "value"),
        [
            ("9007199254740993", "9007199254740992.0", False),
            ("[1e400]", "[1e500]", False),
            ("0.1", "0.1000000000000000000000000000000000001", False),
            ('{"a": 0.1}', {"a": 0.1}, True),
            ('{"a": 1.0}', '{"a": 1}', True),
            ('{"a": 1, "a": 2}', '{"a": 2}', False),
            ('{"a": [{"b": 1, "b": 1}]}', '{"a": [{"b": 1}]}', False),
        ],
    )
    def test_numbers_are_exact_and_names_unique(self, result, expected, value):
        assert json_match(result, expected).value is value

    @given(JSON)
    def test_a_value_matches_its_text_in_any_layout(self, value):
        text = json.dumps(value, indent=3, sort_keys=True)
        assert json_match(text, json.dumps(value)).value is True


class TestText:
    def test_contains(self):
        assert contains("the cat sat", "cat").value is True
        assert contains("the cat sat", "Cat").value is False
        assert contains("the cat sat", "Cat", ignore_case=True).value is True
        assert contains("the cat sat", ["cat", "sat"]).value is True
        assert contains("the cat sat", ["cat", "dog"]).value is False
        assert contains(None, "cat").value is False

    def test_regex_match(self):
        assert regex_match("order 66 done", r"\d+").value is True
        assert regex_match("order", r"\d+").value is False
        assert regex_match("order 66", r"\d+", full=True).value is False
        assert regex_match("66", r"\d+", full=True).value is True
        assert regex_match(None, "").value is False


class TestChoiceMatch:
    @pytest.mark.parametrize(
        ("text", "chosen"),
        [
            ("B", "B"),
            ("(b)", "B"),
            ("The answer is (C).", "C"),
            ("Answer: d", "D"),
            ("**Answer:** C", "C"),
            ("A is tempting, so is B. The answer is D because of that.", "D"),
            ("The answer is B. Wait. The answer is C.", "C"),
            (r"Hence $\boxed{C}$", "C"),
            (r"\boxed{\text{A}}", "A"),
            (r"So $\boxed{\mathrm{B}}$ it is", "B"),
            (r"\boxed{ \mathbf { (C) } }", "C"),
            (r"\boxed{\textbf{D.}}", "D"),
            (r"\boxed{(b)}", "B"),
            (r"\boxed{\mathrm{B} or C}", None),
            (r"\boxed{B, C}", None),
            (r"\textbf{I say \boxed{B} and no more}", "B"),
            (r"\boxed{A} or rather \boxed{\text{C}}", "C"),
            (r"\boxed{\{B\}}, that is \boxed{42", None),
            ("Ｂ", "B"),
            ("（ｃ）", "C"),
            ("Answer：Ｄ。", "D"),
            ("Ａ． Paris", "A"),
            ("$B$", "B"),
            ("B) Paris", "B"),
            ("I pick **D**, surely", "D"),
            ("the answer is a dog", None),
            ("A dog? I have no idea.", None),
            ("(A) or (B)", None),
            ("", None),
            (None, None),
        ],
    )
    def test_letters(self, text, chosen):
        assert choice_match(text, "B").metadata["chosen"] == chosen
        assert choice_match(text, "B").value is (chosen == "B")

    def test_boxes_within_boxes_take_no_time(self):
        assert choice_match(r"\boxed{" * 20_000 + "B" + "}" * 20_000, "B").value is True

    def test_choices_that_are_full_width_themselves(self):
        choices = ("Ａ", "Ｂ")
        for expected in ("Ｂ", "B"):
            score = choice_match("The answer is (B).", expected, choices)
            assert (score.value, score.metadata["chosen"]) == (True, "Ｂ")

    def test_words(self):
        labels = ("true", "not true", "unknown")
        assert choice_match("It is Not True.", "not true", labels).value is True
        assert choice_match("It is true, or unknown", "true", labels).value is False
        assert choice_match("TRUE", "True", labels).value is True


@pytest.mark.parametrize("filler", [" ", "\n", "\t", "(", "* "])
def test_a_choice_after_a_million_characters(filler: str) -> None:
    long = filler * (1_000_000 // len(filler))
    assert choice_match(f"The answer is B. {long}", "B").value is True
    assert choice_match(f"Answer:{long}x", "B").value is False
    assert choice_match(f"{long}\nB) because", "B").value is True
