# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from fulcra_jax import values


def basic_of(item):
    return values.BASIC[values.ITEM_TO_BASIC[values.ITEMS.index(item)].argmax()]


def test_names_are_counted_and_unique():
    sizes = {"BASIC": 10, "REFINED": 19, "ITEMS": 54, "HIGHER_ORDER": 4}
    for name, size in sizes.items():
        names = getattr(values, name)
        assert len(names) == len(set(names)) == size, name
    assert set(values.DEFINITIONS) == set(values.BASIC)
    assert set(values.ITEMS_BY_REFINED) == set(values.REFINED)


def test_items_per_value_are_those_of_the_release():
    # SD, ST, HE, AC, PO, SE, TR, CO, BE, UN.
    assert values.ITEM_TO_BASIC.sum(0).tolist() == [7, 3, 3, 5, 5, 8, 2, 7, 7, 7]


@pytest.mark.parametrize(
    ("table", "shape"),
    [
        ("ITEM_TO_BASIC", (54, 10)),
        ("ITEM_TO_REFINED", (54, 19)),
        ("REFINED_TO_BASIC", (19, 10)),
    ],
)
def test_every_row_belongs_to_one_value(table, shape):
    matrix = getattr(values, table)
    assert matrix.shape == shape
    assert set(np.unique(matrix)) == {0, 1}
    np.testing.assert_array_equal(matrix.sum(1), 1)
    assert (matrix.sum(0) > 0).all()


@pytest.mark.parametrize(
    "table",
    ["ITEM_TO_BASIC", "ITEM_TO_REFINED", "REFINED_TO_BASIC", "BASIC_TO_HIGHER_ORDER"],
)
def test_tables_are_read_only(table):
    with pytest.raises(ValueError, match="read-only"):
        getattr(values, table)[0, 0] = 1


def test_social_norms_are_the_one_exception():
    """Security in the released ten-value table, Face (so Power) in the other."""
    through_refined = values.ITEM_TO_REFINED @ values.REFINED_TO_BASIC
    differs = (through_refined != values.ITEM_TO_BASIC).any(1)
    assert [values.ITEMS[i] for i in np.flatnonzero(differs)] == [
        "observing social norms"
    ]
    row = values.ITEMS.index("observing social norms")
    assert values.REFINED[values.ITEM_TO_REFINED[row].argmax()] == "Face"
    assert basic_of("observing social norms") == "Security"
    assert basic_of("preserving my public image") == "Power"


@pytest.mark.parametrize(
    ("humility", "basic", "per_value"),
    [
        ("conformity", "Conformity", [7, 3, 3, 5, 5, 8, 2, 7, 7, 7]),
        ("tradition", "Tradition", [7, 3, 3, 5, 5, 8, 4, 5, 7, 7]),
    ],
)
def test_both_conventions_of_humility(humility, basic, per_value):
    refined = values.refined_to_basic(humility=humility)
    assert refined[values.REFINED.index("Humility"), values.BASIC.index(basic)] == 1
    items = values.item_to_basic(humility=humility)
    assert items.sum(0).tolist() == per_value
    for item in ("be humble", "accepting my portion in life"):
        assert items[values.ITEMS.index(item), values.BASIC.index(basic)] == 1
    assert values.canonical_value("Humility", humility=humility) == basic


def test_face_may_be_left_out():
    table = values.refined_to_basic(face="none")
    assert table[values.REFINED.index("Face")].sum() == 0
    assert table.sum() == 18


@pytest.mark.parametrize(
    ("hedonism", "poles"),
    [
        ("both", ["Openness to change", "Self-enhancement"]),
        ("openness", ["Openness to change"]),
        ("enhancement", ["Self-enhancement"]),
    ],
)
def test_hedonism_sits_on_a_border(hedonism, poles):
    table = values.basic_to_higher_order(hedonism=hedonism)
    row = table[values.BASIC.index("Hedonism")]
    assert [values.HIGHER_ORDER[i] for i in np.flatnonzero(row)] == poles
    others = np.delete(table, values.BASIC.index("Hedonism"), 0)
    np.testing.assert_array_equal(others.sum(1), 1)


def test_higher_order_poles():
    table = values.basic_to_higher_order(hedonism="openness")
    members = {
        pole: {values.ABBREVIATIONS[i] for i in np.flatnonzero(table[:, column])}
        for column, pole in enumerate(values.HIGHER_ORDER)
    }
    assert members == {
        "Openness to change": {"SD", "ST", "HE"},
        "Self-enhancement": {"AC", "PO"},
        "Conservation": {"SE", "TR", "CO"},
        "Self-transcendence": {"BE", "UN"},
    }


def test_ring():
    shared = np.degrees(values.ring_angles())
    tradition, conformity = (values.BASIC.index(v) for v in ("Tradition", "Conformity"))
    assert shared[tradition] == shared[conformity]
    assert len(np.unique(shared)) == 9
    np.testing.assert_allclose(np.diff(np.unique(shared)), 40.0)
    np.testing.assert_allclose(
        np.degrees(values.ring_angles(shared_wedge=False)), 36.0 * np.arange(10)
    )


@pytest.mark.parametrize("item", list(values.ITEMS))
def test_an_item_is_its_own_canonical_name(item):
    assert values.canonical_item(item) == item
    assert values.canonical_item(f"  {item.upper()} ") == item


@pytest.mark.parametrize(
    ("alias", "item"),
    [
        ("self-indulgent", "be self-indulgent"),
        ("have social recognition", "have a social recognition"),
        ("have security", "have family security"),
        ("have a world of peace", "have a world at peace"),
        ("have the wisdom to accept others", "be broadminded"),
        ("have a healthy life", "have a good health"),
        ("Be  Moderate", "moderate"),
    ],
)
def test_aliases_seen_in_the_release(alias, item):
    assert values.canonical_item(alias) == item


def test_aliases_lead_to_items_and_hide_none():
    assert set(values.ITEM_ALIASES.values()) <= set(values.ITEMS)
    assert not set(values.ITEM_ALIASES) & set(values.ITEMS)
    assert not set(values.EXTRA_ITEMS) & (set(values.ITEMS) | set(values.ITEM_ALIASES))
    assert set(values.EXTRA_ITEMS.values()) <= set(values.BASIC)


@pytest.mark.parametrize(
    ("name", "basic"),
    [
        ("be respectful", "Conformity"),
        ("self-respect", "Achievement"),
        ("have wisdom", "Universalism"),
    ],
)
def test_extra_items_are_no_items(name, basic):
    assert values.EXTRA_ITEMS[name] == basic
    with pytest.raises(KeyError, match=f"'{name}' counts for {basic} but is none of"):
        values.canonical_item(name)


@pytest.mark.parametrize(
    ("name", "basic"),
    [("self direction", "Self-direction"), ("un", "Universalism"), ("POWER", "Power")],
)
def test_spellings_of_a_value(name, basic):
    assert values.canonical_value(name) == basic


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: values.canonical_item("be happy"), "'be happy' is no item"),
        (
            lambda: values.canonical_value("honesty"),
            "'honesty' is no basic value; known are: Self-direction, Stimulation",
        ),
        (
            lambda: values.canonical_value("humility", humility="face"),
            "humility 'face' is unknown; known are: conformity, tradition",
        ),
        (
            lambda: values.refined_to_basic(face="security"),
            "face 'security' is unknown; known are: power, none",
        ),
        (
            lambda: values.refined_to_basic(humility="power"),
            "humility 'power' is unknown",
        ),
        (lambda: values.item_to_basic(humility="power"), "humility 'power' is unknown"),
        (
            lambda: values.basic_to_higher_order(hedonism="none"),
            "hedonism 'none' is unknown; known are: both, openness, enhancement",
        ),
    ],
)
def test_unknown_names_are_listed_with_the_known(call, message):
    with pytest.raises(KeyError, match=message):
        call()
