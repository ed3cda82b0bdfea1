"""generate.py: outputs of generators, as small as can be, and ready ones; what is no music is left out."""

import csv
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from experiments import enhance, generate
from experiments.generate import GENERATORS, MATERIAL, loaded, main, parse
from signals.errors import UserError

MUSIC = ["Music", "Speech"]


def listed(path: str) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def source(workplace):
    """Ready outputs: three of MusicGen, one of another generator in a deeper folder, one broken."""
    rng = np.random.default_rng(0)
    places = ["musicgen/a.wav", "musicgen/b #1.flac", "musicgen/c.wav", "other/deep/d.wav"]
    for place, rate in zip(places, (32_000, 32_000, 32_000, 16_000), strict=True):
        path = workplace / "ready" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal((rate // 4, 2)), rate)
    (workplace / "ready" / "other" / "broken.wav").write_text("no audio")
    (workplace / "ready" / "outside.wav").write_text("in no sub-folder: of no generator")
    return "ready"


def by_level(wave: np.ndarray, rate: int) -> list[str]:
    """A tagger that hears music where a constant is added."""
    assert wave.ndim == 2 and rate
    return MUSIC if wave.mean() > 0.1 else ["Speech", "Wind"]


def test_the_paper_s_numbers_and_the_prompts_are_data():
    material = yaml.safe_load(MATERIAL.read_text())
    prompts = {name: settings["prompts"] for name, settings in material["generators"].items()}
    assert {name: len(of_one) for name, of_one in prompts.items()} == {
        "musicgen": 50,
        "audioldm": 50,
        "fastspeech2": 20,
    }
    assert set(prompts) == set(GENERATORS)
    for of_one in prompts.values():
        assert len(set(of_one)) == len(of_one)
        assert all(isinstance(prompt, str) for prompt in of_one)
    assert {name for name in prompts if "keep" in material["generators"][name]} == {"musicgen"}


def test_ready_recordings_are_copied_listed_and_enhanced(source, capsys):
    assert main(["--from", source, "--output", "out", "--tagger", "none"]) == 0
    printed = capsys.readouterr()
    assert "4 recordings made; 4 of 5 in out/" in printed.out
    assert "left out: other/001.wav: undecodable" in printed.err
    lines = listed("out/prompts.csv")
    assert [line["file"] for line in lines] == [f"musicgen/00{n}.wav" for n in (1, 2, 3)] + ["other/002.wav"]
    assert [line["prompt"] for line in lines][1::2] == ["musicgen/b #1.flac", "other/deep/d.wav"]
    assert [line["seed"] for line in lines[:3]] == ["1", "2", "3"]
    made, ready = soundfile.read("out/musicgen/002.wav")[0], soundfile.read("ready/musicgen/b #1.flac")[0]
    assert np.array_equal(made, ready)
    assert soundfile.info("out/other/002.wav").samplerate == 16_000
    assert enhance.main(["out", "--method", "spline", "--output", "out_sr"]) == 0
    assert len(list(Path("out_sr").glob("*/*.wav"))) == 4


def test_what_is_there_is_not_made_again_and_what_is_missing_is(source, capsys):
    command = ["--from", source, "--output", "out", "--tagger", "none"]
    assert main([*command, "--count", "1", "--generator", "musicgen"]) == 0
    assert "1 recordings made; 1 of 1" in capsys.readouterr().out
    first = Path("out/musicgen/001.wav").stat().st_mtime_ns
    assert main([*command, "--generator", "musicgen"]) == 0
    assert "2 recordings made; 3 of 3" in capsys.readouterr().out
    assert Path("out/musicgen/001.wav").stat().st_mtime_ns == first
    Path("out/musicgen/002.wav").unlink()
    assert main([*command, "--generator", "musicgen"]) == 0
    assert "1 recordings made; 3 of 3" in capsys.readouterr().out
    assert main([*command, "--generator", "musicgen", "--seed", "5"]) == 2
    assert (
        "out/musicgen/001.wav has the seed '1', not '6': choose another --output." in capsys.readouterr().err
    )


def test_music_that_is_none_is_left_out_by_name_and_stays_so(source, capsys):
    wave, rate = soundfile.read("ready/musicgen/b #1.flac")
    soundfile.write("ready/musicgen/b #1.flac", wave + 0.3, rate)
    args = parse(["--from", source, "--output", "out", "--generator", "musicgen"])
    generate.generate(args, by_level)
    printed = capsys.readouterr()
    assert "1 recordings made; 1 of 3 in out/, the others in left_out.csv" in printed.out
    assert "left out: musicgen/001.wav: heard: Speech; Wind" in printed.err
    assert [line["file"] for line in listed("out/prompts.csv")] == ["musicgen/002.wav"]
    assert {(line["file"], line["why"]) for line in listed("out/left_out.csv")} == {
        (f"musicgen/{n}.wav", "heard: Speech; Wind") for n in ("001", "003")
    }
    assert not Path("out/musicgen/001.wav").exists()

    def deaf(wave, rate):
        raise AssertionError("what was left out is not heard again")

    generate.generate(args, deaf)
    assert "0 recordings made; 1 of 3" in capsys.readouterr().out
    assert main(["--from", source, "--output", "out", "--generator", "musicgen", "--tagger", "none"]) == 0
    assert "2 recordings made; 3 of 3" in capsys.readouterr().out
    assert listed("out/left_out.csv") == []


def test_only_what_the_material_says_is_tagged(source):
    def never(wave, rate):
        raise AssertionError("the paper tags MusicGen's outputs only")

    generate.generate(parse(["--from", source, "--output", "out", "--generator", "other"]), never)
    assert [line["file"] for line in listed("out/prompts.csv")] == ["other/002.wav"]


@pytest.mark.parametrize(("wave", "why"), [(np.zeros((0, 1)), "empty"), (np.full((9, 1), np.nan), "NaN")])
def test_what_is_no_sound_is_left_out(wave, why):
    assert why in generate.unfit(wave, 16_000, [], None)
    assert generate.unfit(np.zeros((9, 1)), 16_000, [], None) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nowhere"], "--from nowhere: no such folder"),
        (["--from", "ready/musicgen"], "audio in sub-folders is needed"),
        (["--from", "ready", "--generator", "musicgn"], "unknown generator musicgn (did you mean musicgen?)"),
        (["--generator", "suno"], "unknown generator suno"),
        (["--count", "0"], "--count needs a number from 1 on"),
        (["--material", "none.yaml"], "--material none.yaml"),
        (["--material", "list.yaml"], "`generators` and `tagger` are needed"),
        (["--material", "other.yaml"], "unknown generator musicgem"),
        (["--from", "ready", "--device", "abacus"], "--device abacus"),
        (["--material", "empty.yaml"], "musicgen needs a model and lists of prompts"),
        (["--from", "ready", "--output", "strange"], "strange/prompts.csv is not ours, or was changed"),
        (["--from", "ready", "--output", "foreign"], "foreign/prompts.csv is not ours, or was changed"),
        (["--from", "ready", "--output", "longer"], "longer/prompts.csv is not ours, or was changed"),
    ],
)
def test_what_a_user_did_wrong_is_one_line(source, capsys, arguments, message):
    Path("list.yaml").write_text("[a, b]")
    Path("other.yaml").write_text("{generators: {musicgem: {}}, tagger: {}}")
    Path("empty.yaml").write_text("{generators: {musicgen: {model: a}}, tagger: {}}")
    lists = {"strange": b"a,b\n", "foreign": b"file,prompt,model,seed\na,\xe9,b,0\n"}
    for name, text in (lists | {"longer": b"file,prompt,model,seed\na,b,c,0,d\n"}).items():
        Path(name).mkdir()
        Path(name, "prompts.csv").write_bytes(text)
    assert main([*(() if "--output" in arguments else ("--output", "out")), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("generate.py: ")
    assert message in line


# Without the hub, without a package, with a model that fails ----------------------------------------------


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """No network, and an empty cache: libraries are told so as they are imported."""
    import huggingface_hub

    def unreachable(name, timeout):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "model_info", unreachable)


def test_without_the_hub_it_is_one_line(workplace, no_hub, monkeypatch, capsys):
    asked = []

    def load(settings, device, offline):
        asked.append(offline)
        raise OSError("We couldn't connect to the hub\nand so on")

    monkeypatch.setitem(GENERATORS, "audioldm", load)
    assert main(["--output", "out", "--generator", "audioldm"]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("generate.py"))
    assert "cvssp/audioldm-s-full-v2 is not to be had: ConnectionError: Name or service not known" in line
    assert asked == [True]  # from the cache only: no library tries each file again and again
    assert not Path("out").exists()


def test_a_missing_package_is_one_line(no_hub, monkeypatch):
    monkeypatch.setattr(generate, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[generate\]" \(ImportError: g2p-en\)'):
        loaded(GENERATORS["fastspeech2"], {"model": "a/b"}, "cpu")


def test_a_model_that_fails_leaves_what_was_made(workplace, no_hub, monkeypatch, capsys):
    def load(settings, device, offline):
        def make(prompt, seed):
            if seed > 2:
                raise RuntimeError("CUDA out of memory.\nTried to allocate")
            return np.full((100, 1), 0.1, np.float32), 16_000

        return make

    monkeypatch.setitem(GENERATORS, "audioldm", load)
    assert main(["--output", "out", "--generator", "audioldm"]) == 2
    assert "generate.py: audioldm/003.wav: RuntimeError: CUDA out of memory." in capsys.readouterr().err
    assert [line["file"] for line in listed("out/prompts.csv")] == ["audioldm/001.wav", "audioldm/002.wav"]


# The real classes, as small as can be: written to a folder and loaded from there --------------------------


def tiny_musicgen(folder: str) -> dict:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        EncodecConfig,
        EncodecFeatureExtractor,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        MusicgenProcessor,
        PreTrainedTokenizerFast,
        T5Config,
    )

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "</s>": 2, "waltz": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    text = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    codec = EncodecConfig(
        sampling_rate=32_000,
        num_filters=4,
        hidden_size=8,
        upsampling_ratios=[8, 5, 4, 4],
        num_lstm_layers=1,
        codebook_size=16,
        codebook_dim=8,
        target_bandwidths=[2.2],
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=16,
        hidden_size=8,
        ffn_dim=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        pad_token_id=16,
        bos_token_id=16,
    )
    config = MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)
    model = MusicgenForConditionalGeneration(config)
    for layer in model.audio_encoder.quantizer.layers:
        layer.codebook.embed.normal_()  # drawn at random, all codes would sound the same: they are zeros
    model.save_pretrained(folder)
    MusicgenProcessor(EncodecFeatureExtractor(sampling_rate=32_000), tokenizer).save_pretrained(folder)
    return {"model": folder, "seconds": 0.5, "guidance": 3.0}


def tiny_audioldm(folder: str) -> dict:
    from diffusers import AudioLDMPipeline, AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import (
        ClapTextConfig,
        ClapTextModelWithProjection,
        RobertaTokenizerFast,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
    )

    small = {"block_out_channels": (8, 8), "norm_num_groups": 4}
    autoencoder = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        **small,
    )
    denoiser = UNet2DConditionModel(
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=8,
        class_embeddings_concat=True,
        cross_attention_dim=8,
        **small,
    )
    text = ClapTextConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=8,
        max_position_embeddings=64,
    )
    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=16,
        sampling_rate=16_000,
        upsample_initial_channel=32,
        upsample_rates=[5, 4, 4, 2],
        upsample_kernel_sizes=[10, 8, 8, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        normalize_before=False,
    )
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "d": 5}
    AudioLDMPipeline(
        vae=autoencoder,
        text_encoder=ClapTextModelWithProjection(text),
        tokenizer=RobertaTokenizerFast(vocab=words, merges=[], model_max_length=16),
        unet=denoiser,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False),
        vocoder=SpeechT5HifiGan(vocoder),
    ).save_pretrained(folder)
    return {"model": folder, "seconds": 0.5, "guidance": 2.5, "steps": 2}


def tiny_fastspeech2(folder: str) -> dict:
    from transformers import (
        FastSpeech2ConformerConfig,
        FastSpeech2ConformerHifiGanConfig,
        FastSpeech2ConformerWithHifiGan,
        FastSpeech2ConformerWithHifiGanConfig,
    )

    attention = {"encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "speech_decoder_postnet_layers": 2}
    names = ("encoder_linear_units", "decoder_linear_units", "speech_decoder_postnet_units")
    predictors = {f"{name}_predictor_channels": 8 for name in ("duration", "pitch", "energy")}
    units = dict.fromkeys(names, 8) | predictors
    text = FastSpeech2ConformerConfig(
        hidden_size=8, vocab_size=10, num_mel_bins=8, **attention, **layers, **units
    )
    vocoder = FastSpeech2ConformerHifiGanConfig(
        model_in_dim=8,
        upsample_initial_channel=8,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
    )
    both = {"model_config": text.to_dict(), "vocoder_config": vocoder.to_dict()}
    model = FastSpeech2ConformerWithHifiGan(FastSpeech2ConformerWithHifiGanConfig(**both))
    model.model.duration_predictor.linear.bias.data.fill_(2.0)  # e^2 - 1 frames for each sound
    model.save_pretrained(folder)
    return {"model": folder, "tokenizer": "none", "rate": 22_050}


@pytest.fixture
def phonemes(monkeypatch):
    """In the place of FastSpeech 2's tokenizer, which needs g2p-en and what that downloads: letters."""
    from transformers import BatchEncoding, FastSpeech2ConformerTokenizer

    def tokenizer(prompt, return_tensors):
        ids = torch.tensor([[1 + ord(letter) % 9 for letter in prompt]])
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    monkeypatch.setattr(
        FastSpeech2ConformerTokenizer, "from_pretrained", lambda name, local_files_only: tokenizer
    )
    monkeypatch.setattr(generate, "find_spec", lambda name: True)
    monkeypatch.setattr(generate, "fetch_tagger", lambda: None)


def tiny_tagger(folder: str) -> dict:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    classes = dict(enumerate(("Wind", "Music", "Speech")))
    config = ASTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_length=64,
        id2label=classes,
        label2id={name: n for n, name in classes.items()},
    )
    model = ASTForAudioClassification(config)
    model.classifier.dense.bias.data = torch.tensor([-9.0, 9.0, 0.0])  # music, whatever it hears
    model.save_pretrained(folder)
    ASTFeatureExtractor(max_length=64).save_pretrained(folder)
    return {"model": folder, "top": 1}


def test_the_real_generators_and_the_tagger_run(workplace, phonemes, capsys):
    """By the command, from folders; the same seed makes the same again, another one something else."""
    torch.set_num_threads(1)  # what is as small as this only waits for a second one
    material = {
        "generators": {
            "musicgen": tiny_musicgen("musicgen") | {"keep": ["Music"]},
            "audioldm": tiny_audioldm("audioldm"),
            "fastspeech2": tiny_fastspeech2("fastspeech2"),
        },
        "tagger": tiny_tagger("tagger"),
    }
    for settings, prompt in zip(material["generators"].values(), ("waltz", "d", "Ships."), strict=True):
        settings["prompts"] = [prompt, prompt]
    Path("tiny.yaml").write_text(yaml.safe_dump(material))
    command = ["--material", "tiny.yaml", "--device", "cpu", "--output"]
    for output in ("one", "two"):
        assert main([*command, output]) == 0
        assert f"6 recordings made; 6 of 6 in {output}/" in capsys.readouterr().out
    waves = {
        path.relative_to("one").as_posix(): [
            soundfile.read(folder / path.relative_to("one"))[0] for folder in (Path("one"), Path("two"))
        ]
        for path in Path("one").glob("*/*.wav")
    }
    assert all(np.array_equal(*both) for both in waves.values())
    assert not np.array_equal(waves["musicgen/001.wav"][0], waves["musicgen/002.wav"][0])
    assert not np.array_equal(waves["audioldm/001.wav"][0], waves["audioldm/002.wav"][0])
    assert np.array_equal(waves["fastspeech2/001.wav"][0], waves["fastspeech2/002.wav"][0])
    rates = {name: soundfile.info(f"one/{name}/001.wav") for name in GENERATORS}
    assert (rates["musicgen"].samplerate, rates["musicgen"].frames) == (32_000, 16_000)
    assert (rates["audioldm"].samplerate, rates["audioldm"].frames) == (16_000, 8_000)
    assert rates["fastspeech2"].samplerate == 22_050 and rates["fastspeech2"].frames > 100
    material["generators"]["musicgen"]["keep"] = ["Wind"]
    Path("tiny.yaml").write_text(yaml.safe_dump(material))
    assert main([*command, "three", "--generator", "musicgen"]) == 0
    assert "left out: musicgen/001.wav: heard: Music" in capsys.readouterr().err


def test_nltk_is_asked_for_what_it_lacks_only(monkeypatch):
    asked = []

    def find(name):
        if not asked:
            raise LookupError(name)

    nltk = types.SimpleNamespace(
        data=types.SimpleNamespace(find=find), download=lambda name, quiet: asked.append(name)
    )
    monkeypatch.setitem(sys.modules, "nltk", nltk)
    generate.fetch_tagger()
    generate.fetch_tagger()
    assert asked == ["averaged_perceptron_tagger_eng"]
