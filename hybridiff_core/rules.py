"""The constants that decide how close a picture stays, and where each comes from.

A benchmark that is named has its table in docs/benchmarks. Chosen on two small trained models (a U-Net, a DiT).
"""

from __future__ import annotations

# -- the paper's (arXiv 2602.21760): L, g, tau_cap and k as published, for 50 steps of DDIM at 1024 px
PAPER_STEPS = 50
PUBLISHED = {
    "SDXL (paper)": {"slope_window": 12, "slope_threshold": 0.4e-3, "warmup_cap": 15, "parallel_steps": 5},
    "SD3 (paper)": {"slope_window": 15, "slope_threshold": 0.1e-3, "warmup_cap": 40, "parallel_steps": 5},
}

# -- which steps auto, and predict with a tolerance, leave out (benchmarks/quality.py, places.py)
LEAST_STEPS = 8  # with fewer steps auto is exact: the first and last ones, always computed, leave next to none
AUTO_START = 4  # auto's first step that may be predicted; errors in the first ones cost most (places.py)
AUTO_TOLERANCE = 0.01  # auto's own; the lowest worst 5 % of all settings measured is then 43.6 dB (quality.py)
LAST_STEPS = 2  # always computed: one predicted step among them cost 15 to 20 dB on the U-Net (quality.py)
MOST_PREDICTED = 2  # steps in a row; with three dpmpp_2m at 28 steps and CFG 1 gave 38.3 dB, with two 47.5 (quality.py)
REACH = 1.5  # times the distance of the last two computed values a line is followed; without it 37 dB, with it 48
FAR = 0.2  # an error, as a share of the prediction, beyond which it says nothing of where the picture will go
# what an error in noise times a change of sigma makes of the picture, against a flow's (places.py); below sigma 1 more,
# up to twice as much: there less is taken back by the steps that follow (samplings.py)
NOISE_SHARE = 0.3
HIGHER_ORDER = 3.5  # how much more than Euler a sampler of higher order makes of a step's error (quality.py, dpmpp_2m)
STEPS_PER_CFG = 6  # with fewer steps for each unit of CFG every sampler makes more of it, in proportion (quality.py)
# how errors are expected to grow (modes/expectation.py). By the error measured last alone, runs on a network with a
# known answer were off by up to 17 times the tolerance; so none by twice it (samplings.py)
# levels of noise from the last measured error that it holds for; where there is much noise, a factor of 2.1 in sigma
NEAR = 0.75
# and the least part of the last measured sigma; not a flow's. Where there is little noise, a trained network's errors
# grew by 2.4 from one sigma to a third of it, and were expected to stay: 2.03 times the tolerance (samplings.py)
FALL = 0.4
GROWTHS = 2  # how many times errors grew from one to the next, of which the fastest is followed
MOST_GROWTH = 8.0  # times what was measured, at most
CHECK_EVERY = 5  # where only exact steps show the error: every how many steps one is, with a tolerance

# -- how a value is estimated
FURTHEST = 4.0  # a line through two values is followed up to four times their distance: a guard, not measured
MADE_UP = 0.5  # how much of a predicted step's error is made up for; all of it harms on rough networks (quality.py)
FOLLOWED = 0.5  # a further branch follows the mean of its own slope and the first branch's: their difference bends more
# how much of its slope the guidance difference follows: none up to 25 steps, where following it made dpmpp_2m 15 dB
# worse, rising by 1/50 a step to at most half, which at 50 steps was 8 dB better (quality.py, pipeline on two devices)
NO_GAIN_STEPS, GAIN_STEPS, MOST_GAIN = 25, 50, 0.5

# -- how far a device's result may be from this process's own for the same input, as a share of the network's output
ROUNDING = 1e-4  # float32 on processors
ROUNDING_TF32 = 1e-2  # float32 where a GPU is among them: convolutions then round their inputs to 10 bits (TF32)
# measured between two instruction sets of a processor, random networks of 4, 20 and 40 blocks (false_alarms.py has the
# small ones): bfloat16 0.5 %, 1 % and 1.3 %, float16 an eighth of that
ROUNDING_FLOAT16, ROUNDING_BFLOAT16 = 1e-2, 4e-2
