"""What the demo page's tabs compute, without a browser."""

from __future__ import annotations

import dataclasses

import pytest

from fulgurite.launch.demo.command import NAMES, demo
from fulgurite.launch.demo.tab import framed, told
from fulgurite.registry import UserError

gradio = pytest.importorskip("gradio", reason="needs gradio (pip install 'fulgurite[demo]')")

from fulgurite.launch.demo import chunking, dnd, gamecraft, paro, viki  # noqa: E402


def test_every_paper_has_a_tab_by_the_name_of_its_extra() -> None:
    tabs = [m.TAB for m in (dnd, chunking, paro, viki, gamecraft)]
    assert tuple(tab.name for tab in tabs) == NAMES
    assert [tab.extra for tab in tabs] == list(NAMES)
    assert len({tab.paper for tab in tabs}) == 5


def test_an_unknown_tab_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UserError, match="no tab 'chunks'"):
        demo(tabs="paro,chunks")


def test_a_tab_says_which_package_it_lacks_and_how_it_is_had() -> None:
    lacking = dataclasses.replace(paro.TAB, modules=("json", "no_such_module"))
    assert "needs no_such_module" in lacking.missing()
    assert "[paro]" in lacking.missing()
    assert dataclasses.replace(paro.TAB, modules=("json",)).missing() == ""


def test_a_mistake_appears_as_its_sentence() -> None:
    @told
    def refuse() -> None:
        raise UserError("Drop a PDF first.")

    with pytest.raises(gradio.Error, match="Drop a PDF first"):
        refuse()


def test_a_page_in_a_frame_runs_nothing_and_keeps_its_quotes() -> None:
    shown = framed("A page", '<p class="x">a & b</p>')
    assert 'sandbox=""' in shown
    assert "&lt;p class=&quot;x&quot;&gt;a &amp; b&lt;/p&gt;" in shown


@pytest.mark.parametrize(
    ("lines", "question", "wrong"),
    [
        ("", "what?", "0 different prompts"),
        ("a\n" * 3, " ", "Type a question"),
        ("\n".join(map(str, range(600))), "q", "600"),
    ],
)
def test_prompts_that_are_none_or_too_many_are_refused(lines: str, question: str, wrong: str) -> None:
    with pytest.raises(gradio.Error, match=wrong):
        dnd.compare(lines, question)


def test_a_question_before_a_pdf_is_refused() -> None:
    with pytest.raises(gradio.Error, match="Read a PDF first"):
        chunking.ask("what?", "")


def test_a_tab_that_cannot_be_built_says_why_and_leaves_the_others() -> None:
    from fulgurite.launch.demo.page import blocks

    def refuse() -> None:
        raise UserError("no weights here")

    page = blocks([dataclasses.replace(paro.TAB, modules=("json",), build=refuse)])
    shown = [b.value for b in page.blocks.values() if isinstance(b, gradio.Markdown)]
    assert any("no weights here" in str(text) for text in shown)


def test_a_kitchen_is_drawn_from_any_thread() -> None:
    from concurrent.futures import ThreadPoolExecutor

    pytest.importorskip("mujoco")
    threads = set()

    def note(*given: object) -> str:
        import threading

        threads.add(threading.current_thread().name)
        return "a record"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viki, "photographer", lambda: type("P", (), {"take": staticmethod(note)}))
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(lambda n: viki.scene("test", 1000 + n), range(6))) == ["a record"] * 6
    viki.scene.cache_clear()
    assert len(threads) == 1
