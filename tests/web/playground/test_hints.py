"""hints.js: what the page says about the limits of the service's model, in words for a visitor."""

import pytest

CODE = 'import { remarkOn } from "./hints.js";\nprint(input.map(remarkOn));'
PHOTOGRAPH = {"kind": "photograph", "text": "Segmenter('x')", "words": []}
UNKNOWN = {"kind": "unknown_words", "text": "--checkpoint x", "words": ["xylophone", "gargoyle"]}
LIST = {"kind": "several_things", "text": "-p car -p tree", "words": ["car", "tree"]}
REMEDY = "needs no account for it: s3seg models pull litetext, then a restart."


def remark(run_node, *hints):
    (said,) = run_node(CODE, [{"hint": "; ".join(hint["text"] for hint in hints), "hints": list(hints)}])
    return said


@pytest.mark.parametrize("hints", [(PHOTOGRAPH,), (UNKNOWN,), (LIST,), (PHOTOGRAPH, UNKNOWN, LIST)])
def test_it_speaks_to_a_visitor_and_not_to_a_programmer(run_node, hints):
    said = remark(run_node, *hints)
    assert not any(hint["text"] in said for hint in hints)


def test_a_photograph_gets_a_warning_and_what_the_operator_can_do(run_node):
    said = remark(run_node, PHOTOGRAPH)
    assert said.startswith("This looks like a photograph, but the model of this service knows drawings only")
    assert said.endswith(REMEDY)


def test_unknown_words_are_named_and_the_remedy_is_said_once(run_node):
    said = remark(run_node, PHOTOGRAPH, UNKNOWN)
    assert "does not know “xylophone”, “gargoyle”." in said
    assert said.count(REMEDY) == 1


def test_unknown_words_of_several_prompts_are_one_sentence(run_node):
    said = remark(run_node, UNKNOWN, PHOTOGRAPH, {**UNKNOWN, "words": ["gargoyle", "lute"]})
    assert said.startswith("The model of this service does not know “xylophone”, “gargoyle”, “lute”. This looks like")
    assert said.count("does not know") == 1


def test_a_list_in_one_prompt_has_nothing_to_do_with_the_model(run_node):
    assert remark(run_node, LIST) == "“car”, “tree” were looked for as one thing; put commas between several things."


def test_a_result_of_an_earlier_service_keeps_its_hint_and_no_hint_is_no_remark(run_node):
    assert run_node(CODE, [{"hint": "it rains"}, {}]) == ["It rains.", ""]
