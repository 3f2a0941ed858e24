"""YAML of people: what yaml would let pass, or break at, is one line."""

import pytest

from hen_jax.core.errors import InputError
from hen_jax.core.yaml_text import parse_yaml, read_yaml
from hen_jax.data.patterns import read_guides
from hen_jax.synthesis.materials import load_materials

LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


def test_plain_values_are_read():
    assert parse_yaml('{"a": [1, -2, 0.5, null, true]}') == {"a": [1, -2, 0.5, None, True]}
    assert parse_yaml("a: 你好 😀\nb: 999999999999999999") == {"a": "你好 😀", "b": 10**18 - 1}
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (LAUGHS, r"line 2: \*a0 is an alias"),
        ("a: &a\n  b: *a", r"line 2: \*a is an alias"),
        ("a: 1\na: 2", "line 1: 'a' stands twice"),
        ("\na: " + "9" * 5000, "line 2: a number of more than 18 digits"),
        ("a: 0x" + "f" * 5000, "line 1: a number of more than 18 digits"),
        ('a: "\\ud800"', "line 1: half of a character"),
        ('"\\udfff": a', "line 1: half of a character"),
        ("a: 2020-99-99", r"not valid YAML \(month must be"),
        ("[" * 3000, "not valid YAML"),
        ("[" * 900 + "]" * 900, r"not valid YAML \(nested too deep\)"),
        ("? [a]\n: b", "not valid YAML"),
        ("!!python/object/apply:os.system [id]", "not valid YAML"),
        ("a: !!binary x", "not valid YAML"),
        ("a: !!int x", "not valid YAML"),
        ("a: !!int ''", "not valid YAML"),
        ("!!timestamp x", "not valid YAML"),
        ("!!bool x", "not valid YAML"),
        ("a: \0", "not valid YAML"),
        ("{", "not valid YAML"),
    ],
)
def test_anything_else_is_refused_in_a_line(text, line):
    with pytest.raises(InputError, match=f"^{line}") as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("name", "line"), [("none.yaml", "no such file"), (".", "cannot be read"), ("a\0b", "cannot")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, line):
    with pytest.raises(InputError, match=f": {line}"):
        read_yaml(tmp_path / name)
    (tmp_path / "utf16.yaml").write_bytes("a: 1".encode("utf-16"))
    with pytest.raises(InputError, match=r"utf16\.yaml: cannot be read"):
        read_yaml(tmp_path / "utf16.yaml")


@pytest.mark.parametrize("read", [read_guides, lambda path: load_materials("en", path)])
@pytest.mark.parametrize("text", ["a=" + "[" * 3000, "a=" + "9" * 5000])
def test_toml_that_python_breaks_at_is_refused_in_a_line(tmp_path, read, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.toml: no valid TOML"):
        read(path)
