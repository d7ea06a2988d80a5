"""What each table of docs/benchmarks is about."""

from hybridiff_core.rules import AUTO_TOLERANCE

SPEED = """The small trained transformer, eight pictures at once, 20 steps of euler. ComfyUI's split runs threads in one
process and knows GPUs only; a shim in the benchmark shows it two CPU devices. The speed-up is against KSampler in the
same repeat, median of the repeats. The bound is what arithmetic allows for the steps that were computed. A figure above
it does not beat arithmetic: one device runs both branches as a batch of two, which on this machine costs a little more
than two runs of one."""

DIVIDING = """Exact steps that are divided by a batch's images or an image's tokens. The worker is running, and the
ways were tried before. SD3's layout at 8 blocks, random weights. The bound is for messages that take no time: by tokens
`(n + t) / (n / 2 + t)` for two equal devices, n image and t text tokens; speeds of unlike devices are added up. What
the cores allow is a forward's time alone over its time beside another one. A device that is so many times as slow
shares its core with another program. Bytes are what this process sent and received. A figure above the bound does not
beat arithmetic: half of a forward's tokens may fit a core's cache where all of them do not."""

STAGES = """Euler; k is the length of the middle, which begins at step 10. SD3-type network of 6 blocks at 64x64
latents; SD1.5's layout, narrower and half as deep, at 16x16."""

PROJECTION = """More than two devices cannot be timed on two cores. PROJECTED from the block and transfer times measured
above:"""

BYTES = """GB for one image of 1024 pixels, 50 steps, CFG, two devices; counted over the real channel with tensors of
the true sizes. The paper's and AsyncDiff's figures are the published ones, for k = 5."""

MESSAGES = """Until the answer is here, the main thread waits (idle), or does small operations one after the other
(busy), as it launches kernels in a forward. What the worker computed meanwhile is taken off. `before` is the package
of an older commit, in which other threads sent and received; the two take turns."""

START = """A worker is started and given its model while the run goes on, and joins when it is ready. A run is never to
be more than 5 % longer than KSampler's, whatever the worker does. In the last column a run's step counts where both
devices worked for it."""

FALSE_ALARMS = """The first result of a worker that is new to a model and a latent's shape, and one of the same run's
second half, are compared with this process's own; beyond what is allowed the device is left out. Here the worker
computes with other instructions of the processor, and so rounds otherwise, as unlike devices do: no run may raise an
alarm."""

BY_GRAPH = """A GGUF file, a LoRA, a merge and patches of two more packs. The worker imports the packs and runs the
nodes once; then it runs those whose settings changed, and nothing where none did. The run goes on meanwhile: the first
two calls of a graph are computed alone, to see whether its code keeps anything."""

REMOTE = """What a step takes beyond computing: a latent there and back between two network namespaces of this machine,
joined by a link of a given rate; the worker computes nothing. Beside it what the link alone takes. The first 256 KiB
pass the shaped link at once, so small messages can be faster than it."""

REMOTE_PICTURE = """SD3's layout at 8 blocks, 64x64 latents, 10 exact steps at CFG 5, with a second machine as above.
Each machine has a core, and its own copy of the model's file. The worker runs already."""

GPU = """Networks of the true sizes with random weights in half precision; what two GPUs would bring is projected. A
message goes through the host's memory. A figure above the bound means that a batch of two takes longer than two of one.
On so fast a card a small step is bound by the time in which Python launches its kernels, not by the GPU: SDXL's forward
at 1024 pixels takes as long for one branch as for both, so a second H100 would bring nothing there, and predicted steps
still do. A slower card is not bound like this at this size: its gain is closer to that of larger pictures here. SDXL's
rows in this run are uneven (batch 2 at 1024 took 85 ms, and KSampler's whole steps 54), with three repeats each; the
next table has it again. The run was stopped when its time was up: a few of Wan's rows are missing."""

GPU_SDXL = """The run was cut off before the row of predict on one GPU, which is in the table above."""

GPU_TOKENS = """A forward of the true size, whole, and one device's part where two divide it by the image's tokens.
The other device is a stand-in that has sent all its keys and values already, so nothing is waited for. Bytes were
counted. They then crossed between two processes; on one GPU these share its link to the host's memory. From this two
GPUs are PROJECTED, for links of 6 and 20 GB/s in each direction: with the heads in halves the second half crosses while
the first one's attention is computed, without them nothing is hidden; the better of the two counts. Where a network was
made with fewer blocks, its times and bytes are scaled up by their number, and the row says so."""

TOKENS_UNMEASURED = """**Forwards divided by tokens were not measured on a GPU yet.** `python benchmarks/gpu_tokens.py`
does it, on one."""

TOKENS_ASSUMED = """What follows is arithmetic. A whole forward's time is assumed, for an RTX 4090. Half of the image's
tokens and all of the text's take their share of it. Keys and values of half of the tokens cross in each block, in half
precision, at 6 or 20 GB/s in each direction (a slow slot; PCIe 4 x16). By halves of the heads the second half crosses
while the first one's attention is computed, which takes its share of the time by operations.

For comparison: raylight, which divides by tokens too (Ulysses, NCCL, Linux, nodes of its own), has 1.6 to 1.8x on two
cards at CFG 1, from its own reports, on other machines."""

SAMPLINGS = f"""auto beside its tolerance, {AUTO_TOLERANCE:g}, with each sampling that ComfyUI's nodes set, all of its
schedulers, 12, 20 and 30 steps. `ideal` are networks whose answer is known in closed form, the mean of the pictures
that a noisy latent may have come from: Gaussians with a picture's spectrum (mixture), and a few single pictures
(pictures); `random` is a small one with random weights. `off` is how far the final latent is from that of the
exact run, as a share of it; `predicted` how many of the steps were; the last columns count runs."""

TRAINED = """The small trained transformer as the network of other samplings too: what it is given is the same latent
at the size that it knows. `a step` is how far the worst predicted step alone, computed too where it is, puts the latent
off by auto's rule, which does not count what later steps take back of an early one. Since auto predicts nothing below
two fifths of the last measured sigma, none is over 0.02: zero-SNR with exponential, 12 steps and CFG 1 was 0.0203 off
with one of six seeds."""

SVD = """ComfyUI's own class of Stable Video Diffusion, small and with random weights: its sampling to sigma 700, a
first frame as conditioning, CFG rising over the frames, as in the graph that ComfyUI publishes (karras, 20 steps).
Where nothing is off, every step was exact."""

PLACES = """One step of euler is predicted, and the others are computed: 20 steps, CFG 1, the small trained models.
`error` is how far the predicted output is off, as a share of it; `off` the RMS difference of the pictures, 0 to 1,
in the median of the captions and for the worst; `a unit` is `off` for each unit of error and of the step's change of
sigma. auto's rule takes a unit to be the same at every step. On the U-Net an early step's is less than that for most
captions, and several times more for the few that turn into another picture (none of these). Measured by sigma /
(1 + sigma), as an earlier rule had it, an early step's would be many times a late one's."""

CURVE = """The difference between the branches (rel-MAE) of one prompt, euler. On the DiT it falls, stays flat and
rises, as the paper has it for SDXL and SD3. On the U-Net it does not fall first: this is why auto relies on how well
steps are predicted, not on this curve."""

QUALITY = """PSNR, SSIM and HaarPSI of the decoded pictures against KSampler's on one device; mean over the prompts, and
the 5 % quantile of PSNR. Cost is what the busiest device computes, in forwards of one branch: KSampler on one device
costs twice the steps with guidance, once without. `n steps` are fewer exact steps. EasyCache's cost is that of the two
devices of ComfyUI's split, as if it could be shared without loss. ComfyUI's `ddim` is its `euler`: same figures.
120 dB: no difference."""

EARLIER = """The U-Net was trained more than once by the same commands. This is an earlier one, with modes and EasyCache
at settings at which they were not run on the later one, and without auto."""

TEMPLATES = """Each official template with a local sampler, loaded by a real page, turned to several GPUs by the code
behind the menu's entry, and checked by the server; every file that it names is there, but empty, so nothing is sampled.
How the sampler with most steps is shared is read from the prompt, by what the tables say of its model's family
([COMPATIBILITY.md](../COMPATIBILITY.md), `tests/host/test_tokens.py`) and of the nodes on the model. Conds and rows ask
nothing of a network, so there a family counts that is in no table. It says that a way is open, not that it is faster.
*not told* is a family that was not tried by tokens. CFG and steps are those that the template is saved with; many have
a switch to a few steps at CFG 1."""

NEWER = """Those that a later ComfyUI installs and the one above does not, in its own page."""

# the pages of docs/benchmarks, in order: file, title
PAGES = {
    "speed": "Speed on two CPU cores",
    "gpu": "On one GPU",
    "workers": "Workers: messages, first run, rounding",
    "auto": "What auto does, and why",
    "templates": "ComfyUI's official templates",
    "samplings": "auto with every sampling",
    "quality_dit": "Quality on the small transformer: every row",
    "quality_unet": "Quality on the small U-Net: every row",
}
