"""The suite that `fffcpu.testing` ships, on every backend here, or on that of ``--kernel``."""

from __future__ import annotations

import importlib
import pkgutil

from fffcpu.testing import conformance
from fffcpu.testing.conformance.test_fast_feed_forward import (
    test_a_zero_row_without_bias_goes_left_all_the_way,
    test_calls_with_any_leading_shape_route_alike,
    test_gradients_agree_with_finite_differences,
    test_published_outputs_and_gradients,
    test_published_outputs_of_the_benchmark_layer,
    test_straight_through_adds_the_gradients_of_choices,
    test_straight_through_is_the_derivative_of_a_choice_made_smooth,
    test_straight_through_of_one_node_is_nothing,
    test_ties_go_left,
    test_trees_add_up,
)
from fffcpu.testing.conformance.test_functions import (
    test_inputs_may_be_read_only_and_stay_as_they_are,
    test_signature_is_that_of_the_plain_backend,
)
from fffcpu.testing.conformance.test_leaf import (
    test_a_row_has_the_same_bits_in_any_batch_of_the_leaf_layer,
    test_a_row_that_is_not_finite_spoils_only_itself_in_the_leaf_layer,
    test_every_row_of_a_large_batch_has_the_bits_it_has_in_a_small_one_of_the_leaf_layer,
    test_leaves_agree_with_the_oracle,
)
from fffcpu.testing.conformance.test_leaf_feed_forward import (
    test_a_gate_that_is_not_finite_spoils_the_rows_that_pass_it,
    test_hardened_is_inference_ties_included,
    test_published_outputs_and_gradients_of_the_leaf_layer,
    test_ties_go_right,
)
from fffcpu.testing.conformance.test_narrow_weights import (
    test_a_row_has_the_same_bits_in_any_batch_with_narrow_weights,
    test_bfloat16_weights_give_the_bits_of_float32_ones,
    test_narrow_leaves_agree_with_the_oracle,
    test_narrow_weights_agree_with_the_oracle,
)
from fffcpu.testing.conformance.test_path import (
    test_a_logit_that_overflows_makes_the_row_nan,
    test_a_row_has_the_same_bits_in_a_batch_large_enough_for_all_threads,
    test_a_row_has_the_same_bits_in_any_batch,
    test_a_row_that_is_not_finite_spoils_only_itself,
    test_every_route_is_a_path_from_the_root,
    test_every_row_of_a_large_batch_has_the_bits_it_has_in_a_small_one,
    test_forward_gives_the_bits_of_inference_and_of_the_logits,
    test_logits_and_routes_agree_with_the_oracle,
    test_output_agrees_with_the_oracle,
)
from fffcpu.testing.conformance.test_path_gradients import (
    test_a_row_that_is_not_finite_spoils_only_gradients_of_its_own_nodes,
    test_given_gradients_of_logits_are_added,
    test_gradients_agree_with_the_oracle,
    test_gradients_of_choices_agree_with_the_oracle,
    test_gradients_of_many_rows_and_wide_layers_agree_with_the_oracle,
    test_gradients_of_visited_nodes_go_to_their_places,
    test_nodes_and_sides_without_a_visit_get_no_gradient,
    test_output_that_is_not_finite_aside_of_a_path_is_worth_nothing,
    test_what_is_not_finite_aside_of_a_path_is_worth_nothing,
)

MODULES = [
    importlib.import_module(f"{conformance.__name__}.{module.name}")
    for module in pkgutil.iter_modules(conformance.__path__)
    if module.name.startswith("test_")
]


def test_nothing_of_the_suite_is_left_out():
    assert len(MODULES) == 7
    for module in MODULES:
        for name, test in vars(module).items():
            if name.startswith("test_"):
                assert globals().get(name) is test, f"import {name} of {module.__name__}"
