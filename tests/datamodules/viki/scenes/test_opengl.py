"""OpenGL without a display: which way is taken, and what is said where there is none."""

import pytest

from fulgurite.datamodules.viki.scenes import opengl
from fulgurite.launch import doctor
from fulgurite.registry import UserError


def libraries(*names):
    """Opens the named ones and no other."""

    def load(name: str) -> object:
        if name in names:
            return object()
        raise OSError(name)

    return load


def test_egl_is_taken_before_osmesa_and_osmesa_before_nothing(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert opengl.find_platform(libraries("libEGL.so.1", "libOSMesa.so.8")) == "egl"
    assert opengl.find_platform(libraries("libOSMesa.so.8")) == "osmesa"
    assert opengl.find_platform(libraries()) is None


def test_mujocos_own_variable_chooses(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert opengl.find_platform(libraries("libEGL.so.1", "libOSMesa.so.8")) == "osmesa"
    assert opengl.find_platform(libraries("libEGL.so.1")) is None
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # needs a display: not a way for us
    assert opengl.find_platform(libraries("libEGL.so.1")) == "egl"


def test_without_opengl_a_renderer_says_which_packages_to_install(monkeypatch):
    monkeypatch.setattr(opengl, "find_platform", lambda: None)
    from fulgurite.datamodules.viki.scenes.renderer import SceneRenderer

    with pytest.raises(UserError, match=r"no OpenGL(.|\n)*apt-get install libegl1 libegl-mesa0(.|\n)*libosmesa6"):
        SceneRenderer()


def test_libraries_that_give_no_context_say_which_packages_to_install(monkeypatch):
    egl = pytest.importorskip("mujoco.egl", reason="needs pip install 'fulgurite[viki]' and EGL")

    def fail(*size: int) -> None:
        raise RuntimeError("no device")

    monkeypatch.setattr(opengl, "find_platform", lambda: "egl")
    monkeypatch.setattr(egl, "GLContext", fail)
    with pytest.raises(UserError, match=r"\(egl\) gave no picture: no device\n(.|\n)*apt-get install"):
        opengl.make_context(32, 32)


@pytest.mark.parametrize(("platform", "words"), [("egl", "without a display, egl"), (None, "apt-get install libegl1")])
def test_doctor_tells_of_opengl(monkeypatch, capsys, platform, words):
    monkeypatch.setattr(doctor, "find_platform", lambda: platform)
    doctor._paper("viki", gpus=0)
    assert words in capsys.readouterr().out
