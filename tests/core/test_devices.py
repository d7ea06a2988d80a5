"""Which GPUs auto takes, what choices lead to, and that a worker never gets ComfyUI's own GPU for another.

Drivers and torch's lists are made up here: this is about names, identity and visibility, not about hardware.
"""

import dataclasses
import os
import sys
import types

import psutil
import pytest
import torch

from hybridiff_core.workers import candidates, gpus, usage
from hybridiff_core.workers.devices import choices, own_title, places, short_name
from hybridiff_core.workers.memory import Need, require_room
from hybridiff_core.workers.watch import WorkerLost

from .nvml_fake import GIB, Card, driver
from .torch_fake import Machine

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
LEFT = "; a Hybridiff Devices node can choose it all the same"


def rtx4090(uuid="GPU-4090", **more):
    return Card("NVIDIA GeForce RTX 4090", uuid, (8, 9), 24 * GIB, **more)


def rtx3090(uuid="GPU-3090", **more):
    return Card("NVIDIA GeForce RTX 3090", uuid, (8, 6), 24 * GIB, **more)


def gt1030(uuid="GPU-1030", **more):
    return Card("NVIDIA GeForce GT 1030", uuid, (6, 1), 2 * GIB, **more)


@pytest.fixture
def machine(monkeypatch):
    """machine(cards, ...): NVML and torch list them, unless `nvml` is False."""

    def make(cards, nvml=True, **how):
        if nvml:
            driver(monkeypatch, cards)
        else:
            monkeypatch.setitem(sys.modules, "pynvml", None)
        return Machine(monkeypatch, cards, **how)

    yield make
    gpus.gpus.cache_clear()
    gpus.unopened.cache_clear()


@pytest.fixture
def no_gpus(machine):
    return machine([], nvml=False, backend="none")


def chosen(wanted, own):
    """The GPUs' visibility values that workers get, and the lines."""
    found, lines = places(wanted, own)
    return [next(iter(place.visibility.values()), None) for place in found], lines


# -- names


def test_names_are_titles_in_the_drivers_order(machine):
    machine([rtx4090(), Card("NVIDIA H100 80GB HBM3", "GPU-h", (9, 0), int(79.6 * GIB)), rtx3090()])
    assert choices() == [
        "auto",
        "same",
        "cpu",
        "cuda:0 (RTX 4090, 24 GB)",
        "cuda:1 (H100 80GB HBM3, 80 GB)",
        "cuda:2 (RTX 3090, 24 GB)",
    ]


@pytest.mark.parametrize(
    "model, expected",
    [
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("AMD Radeon PRO W7900", "Radeon PRO W7900"),
        ("Intel(R) Arc(TM) A770 Graphics", "Arc A770"),
        ("Intel(R) UHD Graphics 770", "UHD Graphics 770"),
        ("Tesla T4\n", "Tesla T4"),
    ],
)
def test_makers_are_left_out_of_titles(model, expected):
    assert gpus.short(model) == expected


@pytest.mark.parametrize("saved", ["cuda:1", "cuda:1 (RTX 3090, 24 GB)", "cuda:1 (RTX 5090, 32 GB)"])
def test_short_names_and_other_machines_titles_are_known(machine, saved):
    machine([rtx4090(), rtx3090()])
    assert chosen([saved], FIRST) == (["GPU-3090"], [])


@pytest.mark.parametrize("text", ["auto", "no such value", "", "cuda:1 or so"])
def test_other_texts_are_taken_as_they_are(text):
    assert short_name(text) == text


def test_places_and_ones_own_device_are_called_as_in_the_list(machine):
    machine([rtx3090(), rtx4090()]).show(rtx4090(), rtx3090())  # torch: fastest first
    assert own_title(FIRST) == "cuda:1 (RTX 4090, 24 GB)"
    (place,), _ = places(["auto"], FIRST)
    assert (place.key, place.label, place.device) == ("cuda:0#0", "cuda:0 (RTX 3090, 24 GB)", "cuda:0")
    assert (place.visibility, place.uuid) == ({"CUDA_VISIBLE_DEVICES": "GPU-3090"}, "GPU-3090")
    assert own_title(CPU) == "cpu"


def test_a_gpu_can_be_named_to_its_end(machine):
    long = Card("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "GPU-l", (12, 0), 96 * GIB)
    machine([rtx4090()] * 10 + [long])
    assert len(choices()[-1]) <= 120 and choices()[-1].startswith("cuda:10 (RTX PRO 6000")


# -- identity


def test_auto_is_every_gpu_but_ones_own(machine):
    machine([rtx4090(), rtx3090()])
    assert chosen(["auto"], FIRST) == (["GPU-3090"], [])
    assert chosen(["auto"], SECOND) == (["GPU-4090"], [])


def test_ones_own_is_found_with_cuda_device_1(machine, monkeypatch):
    """--cuda-device 1: torch's cuda:0 is NVML's second."""
    host = machine([rtx3090("GPU-a"), rtx3090("GPU-b")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    host.show(host.cards[1])
    assert own_title(FIRST) == "cuda:1 (RTX 3090, 24 GB)"
    taken, lines = chosen(["auto"], FIRST)
    assert taken == []  # the other was hidden from ComfyUI: two ComfyUIs, one a card
    assert lines == [f"auto leaves out cuda:0 (RTX 3090, 24 GB): it is hidden from ComfyUI{LEFT}"]
    assert chosen(["cuda:0"], FIRST) == (["GPU-a"], [])  # on the user's word


@pytest.mark.parametrize("value", ["1,0", "GPU-b,GPU-a"])
def test_ones_own_is_found_in_the_users_order(machine, monkeypatch, value):
    host = machine([rtx3090("GPU-a"), rtx3090("GPU-b")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    host.show(*reversed(host.cards))
    assert chosen(["auto"], FIRST) == (["GPU-a"], [])
    assert chosen(["auto"], SECOND) == (["GPU-b"], [])


def test_without_nvml_torchs_order_is_not_taken_for_the_slots(machine):
    """Slot 0 is a 3090, torch lists the 4090 first: a number would be read in another order by a worker."""
    machine([rtx4090(), rtx3090()], nvml=False)
    (place,), lines = places(["auto"], FIRST)
    assert place.visibility == {"CUDA_VISIBLE_DEVICES": "GPU-3090"} and lines == []


@pytest.mark.parametrize("nvml", [True, False])
def test_an_old_torch_does_not_know_itself_so_auto_chooses_nobody(machine, nvml):
    machine([rtx3090("GPU-a"), rtx3090("GPU-b")], nvml=nvml, uuids=False)
    taken, lines = chosen(["auto"], FIRST)
    assert taken == []
    assert lines == [
        "auto takes no GPU, for it cannot tell which of them is ComfyUI's own (cuda:0); "
        "a Hybridiff Devices node can choose one"
    ]
    (place,), lines = places(["cuda:1"], FIRST)
    assert place.visibility == {"CUDA_VISIBLE_DEVICES": "GPU-b" if nvml else "1"} and lines == []


def test_an_old_torchs_numbers_go_through_the_users_variable(machine, monkeypatch):
    machine([rtx3090("GPU-a"), rtx3090("GPU-b")], nvml=False, uuids=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 0")
    gpus.gpus.cache_clear()
    (place,), _ = places(["cuda:1"], FIRST)
    assert place.visibility == {"CUDA_VISIBLE_DEVICES": "0"}  # in the inherited CUDA_DEVICE_ORDER


def test_the_only_gpu_is_ones_own_whatever_torch_knows(machine):
    machine([rtx3090()], uuids=False)
    assert chosen(["auto"], FIRST)[1] == ["no second GPU was found on this machine"]
    assert own_title(FIRST) == "cuda:0 (RTX 3090, 24 GB)"


def test_a_gpu_that_nvml_cannot_open_may_be_ones_own(machine):
    machine([rtx3090("GPU-a"), rtx3090("GPU-b", lost=True)], uuids=False)
    assert gpus.gpu_of(FIRST) is None


def test_a_part_of_a_divided_gpu_does_not_know_itself(machine):
    host = machine([Card("NVIDIA A100", "GPU-a", (8, 0), 80 * GIB, mig=True), rtx3090()])
    host.show(Card("NVIDIA A100 MIG 3g.40gb", "0f0f", (8, 0), 40 * GIB))
    taken, (line,) = chosen(["auto"], FIRST)
    assert taken == [] and "which of them is ComfyUI's own (cuda:0)" in line
    (place,), _ = places(["same"], FIRST)
    assert (place.device, place.visibility) == ("cuda:0", {})  # what ComfyUI was shown
    assert chosen(["cuda:1"], FIRST)[0] == ["GPU-3090"]


def test_a_divided_gpu_is_not_autos(machine):
    machine([rtx3090(), Card("NVIDIA A100", "GPU-a", (8, 0), 80 * GIB, mig=True)])
    taken, lines = chosen(["auto"], FIRST)
    assert taken == []
    assert lines == [f"auto leaves out cuda:1 (A100, 80 GB): it is divided into several by the driver (MIG){LEFT}"]
    assert places(["cuda:1"], FIRST)[0][0].uuid == ""  # a worker there sees an instance


RX = [Card("AMD Radeon RX 7900 XTX", f"{i}" * 32, (11, 0), 24 * GIB, more={"gcnArchName": "gfx1100"}) for i in (1, 2)]


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({}, "1"),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, "0"),
        ({"HIP_VISIBLE_DEVICES": "1,0"}, "0"),
        ({"HIP_VISIBLE_DEVICES": "2,3", "CUDA_VISIBLE_DEVICES": "0,1"}, "3"),
        ({"HIP_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "1,0"}, "0"),
        ({"HIP_VISIBLE_DEVICES": "GPU-aa,GPU-bb"}, "GPU-bb"),
    ],
)
def test_on_rocm_the_helper_is_never_the_hosts_card(machine, monkeypatch, variables, expected):
    machine(RX, nvml=False, backend="hip", built=("gfx1030", "gfx1100"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (place,), lines = places(["auto"], FIRST)
    assert place.visibility == {"HIP_VISIBLE_DEVICES": expected, "CUDA_VISIBLE_DEVICES": expected}
    assert (place.key, lines) == ("cuda:1#0", [])


def test_nvidias_library_is_not_asked_for_a_torch_of_amds(machine):
    machine([rtx3090()], backend="hip", built=("gfx1100",)).show(*RX)
    assert choices()[3:] == ["cuda:0 (RX 7900 XTX, 24 GB)", "cuda:1 (RX 7900 XTX, 24 GB)"]


ARC = [Card(f"Intel(R) Arc(TM) {name} Graphics", name, (0, 0), 16 * GIB) for name in ("A770", "B580")]


@pytest.mark.parametrize("mask, expected", [(None, "1"), ("2,3", "3"), ("3,1", "3"), ("0, 2", "2")])
def test_on_intels_the_mask_keeps_level_zeros_order(machine, monkeypatch, mask, expected):
    machine(ARC, nvml=False, backend="xpu", built=())
    if mask is not None:
        monkeypatch.setenv("ZE_AFFINITY_MASK", mask)
    (place,), lines = places(["auto"], torch.device("xpu", 0))
    assert (place.device, place.visibility, lines) == ("xpu:0", {"ZE_AFFINITY_MASK": expected}, [])


@pytest.mark.parametrize("name, value", [("ZE_AFFINITY_MASK", "0.0,0.1"), ("ONEAPI_DEVICE_SELECTOR", "level_zero:1,0")])
def test_on_intels_other_numberings_leave_auto_without_anybody(machine, monkeypatch, name, value):
    machine(ARC, nvml=False, backend="xpu", built=())
    monkeypatch.setenv(name, value)
    taken, (line,) = chosen(["auto"], torch.device("xpu", 0))
    assert taken == [] and "which of them is ComfyUI's own (xpu:0)" in line


# -- whom auto leaves out


def test_auto_takes_the_3090_and_names_the_1030(machine):
    machine([rtx4090(), gt1030(), rtx3090()])
    taken, lines = chosen(["auto"], FIRST)
    assert taken == ["GPU-3090"]
    assert lines == [f"auto leaves out cuda:1 (GT 1030, 2 GB): this PyTorch was not built for it (6.1){LEFT}"]


def test_a_small_gpu_is_named(machine):
    machine([rtx4090(), gt1030()], built=("sm_50", "sm_61", "sm_89"))
    assert chosen(["auto"], FIRST) == (
        [],
        [f"auto leaves out cuda:1 (GT 1030, 2 GB): it has 2 GB of memory, ComfyUI's own has 24{LEFT}"],
    )
    assert chosen(["cuda:1"], FIRST) == (["GPU-1030"], [])


@pytest.mark.parametrize(
    "own, other, taken",
    [(96, 24, True), (96, 16, False), (24, 6, True), (8, 4, True), (8, 3, False), (2, 2, False)],
)
def test_small_is_by_ones_own(machine, own, other, taken):
    machine([Card("A", "GPU-a", total=own * GIB), Card("B", "GPU-b", total=other * GIB)])
    assert chosen(["auto"], FIRST)[0] == (["GPU-b"] if taken else [])


def test_a_twin_of_ones_own_is_never_unfit(machine):
    twin = {"title": "Old", "capability": (5, 0), "total": 2 * GIB}
    machine([Card(uuid="GPU-a", **twin), Card(uuid="GPU-b", **twin)])
    assert chosen(["auto"], FIRST) == (["GPU-b"], [])


@pytest.mark.parametrize(
    "built, capability, runs",
    [
        (["sm_86"], (8, 6), True),
        (["sm_86"], (8, 9), True),
        (["sm_89"], (8, 6), False),
        (["sm_75", "sm_90"], (8, 6), False),
        (["sm_75", "compute_75"], (12, 0), True),
        (["compute_90"], (8, 9), False),
        (["sm_120"], (12, 0), True),
        (["sm_90a"], (9, 0), True),
        ([], (3, 0), True),
        (["sm_75"], None, True),
    ],
)
def test_what_a_torch_was_built_for(monkeypatch, built, capability, runs):
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    assert candidates._has_code(gpus.Gpu("cuda:0", "", {}, capability=capability)) is runs


@pytest.mark.parametrize("integrated", [1, True])
def test_the_processors_graphics_are_named(machine, integrated):
    cards = [RX[0], Card("AMD Radeon Graphics", "33", (10, 3), 16 * GIB, more={"is_integrated": integrated})]
    machine(cards, nvml=False, backend="hip", built=("gfx1100", "gfx1036"))
    assert chosen(["auto"], FIRST) == (
        [],
        [f"auto leaves out cuda:1 (Radeon Graphics, 16 GB): it is the processor's own graphics{LEFT}"],
    )


def test_amds_architecture_must_be_built_too(machine):
    cards = [RX[0], Card("AMD Radeon RX 580", "33", (8, 0), 8 * GIB, more={"gcnArchName": "gfx803"})]
    machine(cards, nvml=False, backend="hip", built=("gfx1100",))
    assert chosen(["auto"], FIRST)[1] == [
        f"auto leaves out cuda:1 (RX 580, 8 GB): this PyTorch was not built for it (gfx803){LEFT}"
    ]


@pytest.mark.parametrize(
    "title, more, integrated",
    [
        ("Intel(R) UHD Graphics 770", {}, True),
        ("Intel(R) Arc(TM) Graphics", {}, True),
        ("Intel(R) Arc(TM) 140V GPU (16GB)", {}, True),
        ("Intel(R) Arc(TM) B580 Graphics", {}, False),
        ("Intel(R) Arc(TM) Pro B60 Graphics", {}, False),
        ("Intel(R) Data Center GPU Max 1550", {}, False),
        ("Intel(R) Graphics", {"is_integrated_gpu": False}, False),
        ("Intel(R) Arc(TM) B580 Graphics", {"is_integrated_gpu": True}, True),
    ],
)
def test_intels_integrated_ones_are_known(machine, title, more, integrated):
    machine([ARC[0], Card(title, "x", (0, 0), 16 * GIB, more=more)], nvml=False, backend="xpu", built=())
    taken, lines = chosen(["auto"], torch.device("xpu", 0))
    assert (taken, len(lines)) == (([], 1) if integrated else (["1"], 0))


# -- busy ones


def test_a_gpu_with_a_language_model_is_named(machine):
    machine([rtx4090(), rtx3090(held={1: 14 * GIB}, free=10 * GIB)])
    assert chosen(["auto"], FIRST) == (
        [],
        [f"auto leaves out cuda:1 (RTX 3090, 24 GB): other programs hold 14.0 GB of its memory{LEFT}"],
    )
    assert chosen(["cuda:1"], FIRST) == (["GPU-3090"], [])


def test_our_own_worker_there_is_nobody_else(machine):
    machine([rtx4090(), rtx3090(held={os.getpid(): 14 * GIB}, free=10 * GIB, utilisation=90)])
    assert chosen(["auto"], FIRST) == (["GPU-3090"], [])


def test_a_desktop_there_is_nobody_who_computes(machine):
    machine([rtx4090(), rtx3090(held={1: 100 * 2**20}, free=23 * GIB, utilisation=10)])
    assert chosen(["auto"], FIRST) == (["GPU-3090"], [])


def test_a_busy_gpu_without_memory_of_others_is_named(machine):
    machine([rtx4090(), rtx3090(utilisation=97)])
    assert chosen(["auto"], FIRST)[1] == [
        f"auto leaves out cuda:1 (RTX 3090, 24 GB): another program keeps it busy (97 %){LEFT}"
    ]


@pytest.mark.parametrize("held", [{}, {4_100_000: 14 * GIB}, {1: None}], ids=["hidden", "another namespace", "Windows"])
def test_where_the_driver_does_not_tell_who_it_is_memory_counts(machine, held, monkeypatch):
    """In containers and on Windows; once found idle, what is there later may be our own worker's, if there is one."""
    card = rtx3090(held=held, free=10 * GIB)
    machine([rtx4090(), card])
    taken, (line,) = chosen(["auto"], FIRST)
    assert taken == [] and "other programs hold 14.0 GB" in line
    card.held, card.free = {}, 24 * GIB
    assert chosen(["auto"], FIRST) == (["GPU-3090"], [])
    card.held, card.free = held, 10 * GIB
    assert chosen(["auto"], FIRST)[0] == []
    ours = candidates._ours() | {1}
    monkeypatch.setattr(candidates, "_ours", lambda: ours)
    assert chosen(["auto"], FIRST) == (["GPU-3090"], [])


@pytest.mark.parametrize("total, used, busy", [(24, 2.9, False), (24, 3, True), (8, 1.9, False), (8, 2, True)])
def test_a_desktops_memory_is_not_called_busy(machine, total, used, busy):
    """On Windows a desktop's programs are listed like others, without what they hold."""
    cards = [Card("A", uuid, (8, 6), total * GIB, held={1: None}) for uuid in ("GPU-a", "GPU-b")]
    cards[1].free = int((total - used) * GIB)
    machine(cards)
    assert chosen(["auto"], FIRST)[0] == ([] if busy else ["GPU-b"])


@pytest.mark.parametrize(
    "used, percent, reason",
    [
        (14 * GIB, 0, "other programs hold 14.0 GB of its memory"),
        (GIB, 97, "another program keeps it busy (97 %)"),
        (GIB, 3, None),
        (None, None, None),
    ],
)
def test_on_linux_the_kernel_says_what_is_used_on_amds(machine, monkeypatch, tmp_path, used, percent, reason):
    at = {"pci_domain_id": 0, "pci_bus_id": 0x0C, "pci_device_id": 0}
    cards = [RX[0], dataclasses.replace(RX[1], more={**RX[1].more, **at})]
    machine(cards, nvml=False, backend="hip", built=("gfx1100",))
    monkeypatch.setattr(usage, "SLOTS", tmp_path)
    if used is not None:
        files = {"mem_info_vram_used": used, "mem_info_vram_total": 24 * GIB, "gpu_busy_percent": percent}
        (tmp_path / "0000:0c:00.0").mkdir()
        for name, value in files.items():
            (tmp_path / "0000:0c:00.0" / name).write_text(f"{value}\n")
    taken, lines = chosen(["auto"], FIRST)
    if reason is None:
        assert (taken, lines) == (["1"], [])
    else:
        assert (taken, lines) == ([], [f"auto leaves out cuda:1 (RX 7900 XTX, 24 GB): {reason}{LEFT}"])


@pytest.mark.parametrize("integrated", [False, True])
def test_on_linux_a_worker_on_an_amd_is_given_what_its_memory_takes(machine, monkeypatch, tmp_path, integrated):
    at = {"pci_domain_id": 0, "pci_bus_id": 0x0C, "pci_device_id": 0, "is_integrated": integrated}
    cards = [RX[0], dataclasses.replace(RX[1], more={**RX[1].more, **at})]
    machine(cards, nvml=False, backend="hip", built=("gfx1100",))
    monkeypatch.setattr(usage, "SLOTS", tmp_path)
    (tmp_path / "0000:0c:00.0").mkdir()
    for which, size in (("used", 22 * GIB), ("total", 24 * GIB)):
        (tmp_path / "0000:0c:00.0" / f"mem_info_vram_{which}").write_text(f"{size}\n")
    ((place,), _) = places(["cuda:1"], FIRST)
    line = require_room(place, Need("model", 11 * GIB, GIB, mapped=True), None)
    if integrated:  # its part of the RAM is not all that it can take
        assert line is None
    else:
        assert line.startswith("cuda:1 (RX 7900 XTX, 24 GB) has 2.0 GB of its memory free, this model needs 12.0")
        with pytest.raises(WorkerLost, match=r"2\.0 GB of its memory are free"):
            require_room(place, Need("model", 11 * GIB, whole=True, mapped=True), None)


def test_a_card_that_does_not_answer_is_not_called_busy(machine):
    machine([rtx4090(), rtx3090(dumb=True)])
    assert chosen(["auto"], FIRST) == (["GPU-3090"], [])


# -- order


def test_likeness_comes_first_then_capability_then_free_memory(machine):
    cards = [
        rtx3090("GPU-own"),
        Card("NVIDIA GeForce RTX 3080", "GPU-3080", (8, 6), 12 * GIB, free=11 * GIB),
        Card("NVIDIA RTX A5000", "GPU-a5000", (8, 6), 24 * GIB, free=23 * GIB),
        rtx4090(free=22 * GIB + GIB // 2),
        rtx3090("GPU-twin", free=23 * GIB),
    ]
    machine(cards)
    taken, lines = chosen(["auto"], FIRST)
    assert taken == ["GPU-twin", "GPU-4090", "GPU-a5000", "GPU-3080"] and lines == []


# -- hidden, or not


def hidden_by(monkeypatch, host, parent, **variables):
    """Windows: a process with these variables, of which its parent has those of `parent`; it sees its first GPU."""
    monkeypatch.setattr(gpus, "WINDOWS", True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    above = None if parent is None else types.SimpleNamespace(environ=lambda: parent)
    own = types.SimpleNamespace(parent=lambda: above, pid=os.getpid(), children=lambda recursive: [])
    monkeypatch.setattr(psutil, "Process", lambda *_: own)
    host.show(host.cards[0])


@pytest.mark.parametrize(
    "parent, variables, by_comfyui",
    [
        ({}, {"CUDA_VISIBLE_DEVICES": "0"}, True),  # as ComfyUI 0.33 does by itself
        ({"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "0"}, False),  # the user's variable
        ({}, {"CUDA_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "0"}, False),  # --cuda-device 0
        ({}, {"CUDA_VISIBLE_DEVICES": "1"}, False),
        # restarted, as ComfyUI-Manager does it: the variable comes from a process that is gone
        (None, {"CUDA_VISIBLE_DEVICES": "0"}, True),
        (None, {"CUDA_VISIBLE_DEVICES": "0", gpus.WHO: "host"}, True),
        (None, {"CUDA_VISIBLE_DEVICES": "0", gpus.WHO: "user"}, False),
    ],
)
def test_comfyuis_own_hiding_on_windows_is_not_the_users_wish(machine, monkeypatch, parent, variables, by_comfyui):
    host = machine([rtx3090("GPU-a"), rtx3090("GPU-b")])
    hidden_by(monkeypatch, host, parent, **variables)
    taken, lines = chosen(["auto"], FIRST)
    assert (taken, len(lines)) == ((["GPU-b"], 0) if by_comfyui else ([], 1))
    if "HIP_VISIBLE_DEVICES" not in variables and variables["CUDA_VISIBLE_DEVICES"] == "0":
        assert os.environ[gpus.WHO] == ("host" if by_comfyui else "user")  # for the process after a restart


def test_default_device_hides_nothing(machine, monkeypatch):
    """--default-device 1 sets 1,0,2,...,31."""
    host = machine([rtx3090("GPU-a"), rtx3090("GPU-b")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, [1, 0, *range(2, 32)])))
    host.show(*reversed(host.cards))
    assert chosen(["auto"], FIRST) == (["GPU-a"], [])


@pytest.mark.parametrize("hidden", [None, "-1", ""])
def test_a_host_on_the_cpu_takes_no_gpu(machine, monkeypatch, hidden):
    """--cpu, and what users set to keep GPUs from a process."""
    host = machine([rtx3090()])
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        host.show()
    assert chosen(["auto"], CPU) == (
        [],
        ["this process computes on the CPU, so auto takes no GPU; a Hybridiff Devices node can choose one"],
    )
    assert chosen(["cuda:0"], CPU) == (["GPU-3090"], [])


@pytest.mark.parametrize("own", ["mps", "privateuseone:0"])
def test_other_kinds_of_devices_have_no_second_one(no_gpus, own):
    found, lines = places(["auto"], torch.device(own))
    assert (found, lines) == ([], ["no second GPU was found on this machine"])
    (place,), _ = places(["same"], torch.device(own))
    assert (place.device, place.visibility) == (own, {})


def test_auto_without_a_second_gpu_says_so(no_gpus):
    found, lines = places(["auto"], CPU)
    assert found == []
    assert lines == ["no second GPU was found on this machine"]


# -- choices


def test_same_is_ones_own_gpu(machine):
    machine([rtx3090(), rtx4090()])
    (place,), lines = places(["same"], SECOND)
    assert (place.key, place.device, place.visibility) == ("cuda:1#0", "cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-4090"})
    assert (place.label, lines) == ("cuda:1 (RTX 4090, 24 GB) (process 2)", [])


def test_a_device_that_is_gone_is_named(machine):
    machine([rtx4090(), rtx3090()])
    found, lines = places(["cuda:7 (RTX 2080, 8 GB)", "cuda:1"], FIRST)
    assert [place.key for place in found] == ["cuda:1#0"]
    assert lines == ["the device cuda:7 is not on this machine (here are: same, cpu, cuda:0, cuda:1)"]


@pytest.mark.parametrize("choice", ["auto", "cuda:1"])
def test_a_gpu_that_cannot_be_opened_is_named(machine, choice):
    machine([rtx4090(), rtx3090(lost=True)])
    assert chosen([choice], FIRST) == ([], ["the GPU cuda:1 cannot be opened (GPU is lost), so it is left out"])
    assert choices()[3:] == ["cuda:0 (RTX 4090, 24 GB)"]


def test_ones_own_card_by_name_is_said(machine):
    machine([rtx4090(), rtx3090()])
    (place,), lines = places(["cuda:0"], FIRST)
    assert place.label == "cuda:0 (RTX 4090, 24 GB) (process 2)"
    assert lines == [
        "cuda:0 (RTX 4090, 24 GB) is ComfyUI's own GPU: a worker there loads the model a second time, and is no faster"
    ]


def test_two_autos_put_one_worker_on_each_gpu(machine):
    machine([rtx4090(), rtx3090("GPU-b"), rtx3090("GPU-c")])
    assert chosen(["auto", "auto"], FIRST) == (
        ["GPU-b", "GPU-c"],
        ["auto is chosen 2 times; each GPU has one worker all the same"],
    )


@pytest.mark.parametrize("wanted", [["auto", "cuda:1"], ["cuda:1 (RTX 3090, 24 GB)", "auto"]])
def test_auto_beside_a_name_is_the_others(machine, wanted):
    machine([rtx4090(), rtx3090("GPU-b"), rtx3090("GPU-c")])
    taken, lines = chosen(wanted, FIRST)
    assert sorted(taken) == ["GPU-b", "GPU-c"] and lines == []


def test_a_gpu_named_twice_gets_two_workers_and_a_line(machine):
    machine([rtx4090(), rtx3090()])
    found, lines = places(["cuda:1", "cuda:1 (RTX 3090, 24 GB)"], FIRST)
    assert [place.key for place in found] == ["cuda:1#0", "cuda:1#1"]
    assert lines == ["cuda:1 (RTX 3090, 24 GB) is chosen 2 times: each of its workers loads the model"]


def test_a_processor_named_twice_gets_two_processes(no_gpus):
    found, _ = places(["same", "same", "cpu"], CPU)
    assert [place.key for place in found] == ["cpu#0", "cpu#1", "cpu#2"]
    assert [place.label for place in found] == ["cpu (process 2)", "cpu (process 3)", "cpu (process 4)"]
    assert all(place.device == "cpu" and place.visibility == {"CUDA_VISIBLE_DEVICES": ""} for place in found)


def test_a_saved_title_is_that_cards_wherever_it_is_now(machine):
    machine([rtx3090(), rtx4090()])
    assert chosen(["cuda:1 (RTX 3090, 24 GB)"], FIRST)[0] == ["GPU-3090"]
    assert chosen(["cuda:1 (RTX 2080, 8 GB)"], FIRST)[0] == ["GPU-4090"]  # no such card: by its number
