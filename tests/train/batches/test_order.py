import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.train.batches.order import NO_ROW, order_of, split

orders = st.builds(
    lambda rows, batch, seed, epochs: order_of(
        num_rows=rows, global_batch_rows=batch, seed=seed, epochs=epochs, steps=None
    ),
    st.integers(1, 60),
    st.integers(1, 16),
    st.integers(0, 5),
    st.integers(1, 4),
)


@given(orders)
@settings(max_examples=60, deadline=None)
def test_every_row_is_visited_exactly_once_an_epoch(order) -> None:
    seen = np.concatenate([order.global_rows(k) for k in range(order.num_steps)])
    assert (seen[order.total_rows :] == NO_ROW).all()
    epochs = seen[: order.total_rows].reshape(-1, order.num_rows)
    assert (np.sort(epochs, axis=1) == np.arange(order.num_rows)).all()


@given(orders, st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_any_number_of_ranks_gets_the_same_batch(order, world_size, micro_rows) -> None:
    step = order.num_steps - 1
    parts = [order.rank_rows(step, rank, world_size, micro_rows) for rank in range(world_size)]
    assert {p.shape for p in parts} == {split(order.global_batch_rows, world_size, micro_rows)}
    together = np.concatenate([p.reshape(-1) for p in parts])
    assert list(together[: order.global_batch_rows]) == list(order.global_rows(step))
    assert (together[order.global_batch_rows :] == NO_ROW).all()


def test_epochs_are_ordered_differently_and_seeds_too() -> None:
    def first_epochs(seed: int) -> list[list[int]]:
        order = order_of(num_rows=32, global_batch_rows=32, seed=seed, epochs=2, steps=None)
        return [order.global_rows(k).tolist() for k in range(2)]

    (a, b), (c, _) = first_epochs(1), first_epochs(2)
    assert len({tuple(x) for x in (a, b, c)}) == 3


def test_steps_override_epochs() -> None:
    order = order_of(num_rows=10, global_batch_rows=4, seed=0, epochs=1, steps=7)
    assert order.num_steps == 7
    assert NO_ROW not in order.global_rows(6)
