"""What systems add that no recording has: seams at the cut-off and between blocks, clicks, tones.

Metrics as `signals.metrics` defines them.
"""

from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d, pad

from signals.frames import Frames, counts_of, frames_of, mean_of, powers_of, sounds
from signals.stretches import Sound, alike, by_stretches, side_by_side, summed_in
from signals.types import Signal, check_alike, valid

SEAM_AROUND = 128  # samples
CLICK_WINDOW = 10.0  # ms: how long a moment is, of which a usual bend is taken
CLICK_USUAL = 0.9  # the quantile of a moment's bends that is usual
CLICK_OUTLIER = 8.0  # times the usual bend; of normal noise, 13 standard deviations
CLICK_LEAST = 0.005  # times the estimate's RMS: the least that is usual, in pauses
CLICK_NEW = 2.0  # times the reference's largest bend nearby
CLICK_NEAR = 1.0  # ms: what is nearby


@by_stretches
def seam(
    estimate: Sound, reference: Sound, cutoff: Tensor | None = None, width: float = 500.0
) -> dict[str, Tensor]:
    """How far the step in level at the cut-off is from the reference's, in dB.

    The step is the mean power of the bins up to `width` Hz above the cut-off over that of the bins up to
    `width` Hz below it, each plus 1e-8, in frames of 2048 samples every 512. The two bins next to the cut-off
    on either side are left out: the window spreads the louder band into them. nan for silence, and where
    there is no cut-off below half the rate.
    """
    frames = Frames(2048, 512, "mirror")
    if cutoff is None:
        check_alike(estimate, reference)
        return {"": torch.full(reference.lengths.shape, torch.nan, device=reference.lengths.device)}
    spacing = reference.rate / 2048
    above = torch.arange(1025, device=cutoff.device) * spacing - cutoff.double()[:, None]
    bands = [(side * above > 2 * spacing) & (side * above <= width) for side in (1, -1)]
    sums = [0, 0]
    for *powers, counted in powers_of(estimate, reference, frames):
        powers = [(power * counted[..., None]).sum(1, dtype=summed_in(reference)) for power in powers]
        sums = [sum_ + power for sum_, power in zip(sums, powers, strict=True)]
    counts = counts_of(reference.lengths, frames)[:, None]
    steps = []
    for total in sums:
        over, under = (mean_of((total / counts).double(), band) + 1e-8 for band in bands)
        steps.append(10 * (over / under).log10())
    sounds = torch.stack([total.sum(1) > 0 for total in sums]).all(0)
    return {"": (steps[0] - steps[1]).abs().where(sounds & (cutoff < reference.rate / 2), torch.nan)}


@by_stretches
def block_seam(
    estimate: Sound, reference: Sound, cutoff: Tensor | None = None, block: int = 8192
) -> dict[str, Tensor]:
    """How much larger the jumps of the error are at the borders of blocks than around them, in dB.

    With the error e = estimate - reference, its jumps d[n] = e[n] - e[n - 1] and D = 10 log10(d^2 + 1e-12),
    it is the mean over n = block, 2 block, ... of D[n] minus the mean of D within SEAM_AROUND samples of n.
    (Of logarithms and of neighbours, since jumps are heavy-tailed and follow the sound.) 0 dB: blocks that
    were made one by one join as if they were one. nan where there is no border or no error. block: samples.
    A recording has few borders, so a single score is rough, by some dB.
    """
    reach = SEAM_AROUND + 1
    lengths, heard, steps, count = reference.lengths[:, None], False, 0, 0
    for first, E, R in side_by_side(estimate, reference, reach):
        error = E.double() - R.double()
        n = torch.arange(first - reach + 1, first - reach + error.shape[1], device=error.device)
        inside = (n > 0) & (n < lengths)
        jumps = 10 * (error.diff().square() + 1e-12).log10() * inside
        around = (_around(jumps) - jumps) / (_around(inside.double()) - 1).clamp(min=1)
        here = slice(reach - (first > 0), error.shape[1] - reach - 1)  # n of the stretch itself, 0 left out
        borders = (inside & (n % block == 0))[:, here]
        steps = steps + (jumps - around)[:, here].where(borders, 0).sum(1)
        count = count + borders.sum(1)
        heard = heard | sounds(error)
    return {"": (steps / count).where(heard, torch.nan)}


def _around(values: Tensor) -> Tensor:
    """Sums of `values` [B, T] from SEAM_AROUND before to as many after each [B, T]."""
    size = 2 * SEAM_AROUND + 1
    return size * avg_pool1d(values[:, None], size, 1, SEAM_AROUND)[:, 0]


@by_stretches
def clicks(estimate: Sound, reference: Sound, cutoff: Tensor | None = None) -> dict[str, Tensor]:
    """Pops per second that the reference does not have.

    They are found as in restoration (Godsill and Rayner 1998, chapter 5): as outliers of a residual, against
    a robust scale of the moment. The residual is the bend |x[n - 1] - 2 x[n] + x[n + 1]|, where impulses and
    steps stand out. Its scale is the 0.9 quantile of the bends in windows of 10 ms: the largest of the window
    about n and of the two beside it (so an onset is no outlier), and at least 0.005 of the estimate's RMS.
    A sample clicks where the estimate's bend is more than 8 times that scale, and more than twice any bend
    that the reference, brought to the estimate's RMS, has within 1 ms. Clicks up to 2 ms apart are one.
    Neither a gain nor a low-pass makes clicks, and what the recording masks does not count; a delay of more
    than 1 ms does make the recording's own clicks new. nan where the estimate is not finite.
    """
    rate, lengths = reference.rate, reference.lengths
    near, window = round(CLICK_NEAR / 1000 * rate), round(CLICK_WINDOW / 1000 * rate)
    rms, rms_ref = _rms(estimate, reference)
    gain = rms / rms_ref.clamp(min=torch.finfo(rms.dtype).eps)
    bend, bend_ref = (_bend(sound) for sound in alike(estimate, reference))

    usual = torch.cat(  # of window n, about n * window
        [
            framed.kthvalue(ceil(CLICK_USUAL * window), dim=-1).values * counted
            for framed, counted in frames_of([bend], Frames(window, window, "mirror"))
        ],
        dim=1,
    )
    scale = torch.maximum(_widest(pad(usual, (0, 1)), 1), CLICK_LEAST * rms[:, None])

    clicks, around = 0, 2 * near + 1
    for first, E, R in side_by_side(bend, bend_ref, around):
        n = torch.arange(first - around, first - around + E.shape[1], device=E.device)
        nearest = ((n + window // 2) // window).clamp(0, scale.shape[1] - 1)
        known = gain[:, None] * _widest(R, near)
        clicking = (CLICK_OUTLIER * scale[:, nearest] < E) & (CLICK_NEW * known < E)
        within = _widest(clicking.to(E), near) * (n >= 0)
        starts = within.diff() > 0  # of n from the second on
        clicks = clicks + starts[:, around - 1 : E.shape[1] - around - 1].sum(1)
    return {"": (clicks * rate / lengths).where(rms.isfinite(), torch.nan)}


def _rms(estimate: Sound, reference: Sound) -> tuple[Tensor, Tensor]:
    """[B] of each."""
    powers = 0
    for _, *waves in side_by_side(estimate, reference):
        squares = [wave.square().sum(-1, dtype=summed_in(reference)) for wave in waves]
        powers = powers + torch.stack(squares)
    return tuple((powers / reference.lengths).sqrt().to(waves[0].dtype))


def _bend(sound: Sound) -> Sound:
    """|x[n - 1] - 2 x[n] + x[n + 1]| where a sample has a neighbour on either side, else 0."""
    if isinstance(sound, Signal):
        inside = valid(sound.lengths - 1, sound.wave.shape[-1])[:, None]
        return sound._replace(wave=pad(sound.wave.diff(n=2).abs(), (1, 1)) * inside)

    def read(first: int, count: int) -> Tensor:
        wave = sound.read(first - 1, count + 2)
        n = torch.arange(first, first + count, device=wave.device)
        return wave.diff(n=2).abs() * ((n > 0) & (n < sound.samples - 1))

    return sound._replace(read=read)


def _widest(values: Tensor, reach: int) -> Tensor:
    """The largest of `values` [B, T] from `reach` before to `reach` after each [B, T]."""
    return max_pool1d(values[:, None], 2 * reach + 1, 1, reach)[:, 0]


@by_stretches
def tones(
    estimate: Sound, reference: Sound, cutoff: Tensor | None = None, period: int = 32
) -> dict[str, Tensor]:
    """Level of the loudest tone that repeats every `period` samples, in dB of a full-scale sine.

    Upsampling by shuffles leaves such tones, of period 2^n after n shuffles by 2; they are heard where the
    input is empty (King et al. 2021, Figure 5). The median over frames of 1024 samples every 512 (a tone is
    there all the time, what networks do at their ends is not) of the power at the multiples of rate / period
    above 0, half the rate included; at least -240 dB. The reference is not looked at.
    """
    framing = Frames(1024, 512, "mirror", double=True)
    at = torch.arange(1024 // period, 513, 1024 // period, device=reference.lengths.device)
    powers = [
        power[..., at].where(counted[..., None], torch.nan)
        for power, _, counted in powers_of(estimate, reference, framing)
    ]
    median = torch.cat(powers, dim=1).nanmedian(dim=1).values
    # Of amplitude 1 under a Hann window; at half the rate a tone is its own mirror image.
    full_scale = torch.where(at < 512, 1024 / 4, 1024 / 2).square()
    return {"": 10 * (median / full_scale).amax(1).clamp(min=1e-24).log10()}
