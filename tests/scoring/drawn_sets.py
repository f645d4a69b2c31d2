"""Hypothesis strategies for sets of embeddings."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


@st.composite
def sets(draw):
    """Draw sets from few values, so that ties, duplicates, opposite embeddings and scores of -0.0 are frequent."""
    count, dim = draw(st.integers(2, 40)), draw(st.integers(1, 5))
    grid = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 2.0])
    values = draw(st.sampled_from([grid, st.floats(-4, 4, width=16)]))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    embeddings = draw(hnp.arrays(dtype, (count, dim), elements=values))
    embeddings[(embeddings.astype(np.float32) == 0).all(axis=1), 0] = 1.0
    systems = draw(hnp.arrays("U1", count, elements=st.sampled_from("abcd")))
    strata = draw(st.none() | hnp.arrays("U1", count, elements=st.sampled_from("xyz")))
    assume(1 < len(set(systems.tolist())) < count)
    return embeddings, systems, strata


@st.composite
def exact_sets(draw):
    """Draw sets whose cosines are multiples of 1/4, so that no order of summation changes them."""
    count = draw(st.integers(3, 60))
    whole = hnp.arrays(np.float32, 4, elements=st.sampled_from([-1.0, 1.0]))
    lone = st.builds(
        lambda index, value: value * np.eye(4, dtype=np.float32)[index],
        st.integers(0, 3),
        st.sampled_from([-4.0, 2.0]),
    )
    embeddings = np.stack(draw(st.lists(whole | lone, min_size=count, max_size=count)))
    systems = draw(hnp.arrays("U1", count, elements=st.sampled_from("abcd")))
    strata = draw(st.none() | hnp.arrays("U1", count, elements=st.sampled_from("xyz")))
    assume(1 < len(set(systems.tolist())) < count)
    return embeddings, systems, strata
