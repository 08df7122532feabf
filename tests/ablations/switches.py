"""The switches: each turns one safeguard off, in this process alone, and names a test that notices.

`pytest --without NAME` runs any tests so, and shows which of them notice. The product knows nothing
of it: a switch patches one function by its name, and one whose function is gone fails.
`test_ablations.py` runs the named tests without their safeguards, and each has to fail.
"""

from collections.abc import Callable
from typing import NamedTuple

from tests.ablations import peers, rules, store


class Switch(NamedTuple):
    """One safeguard."""

    turn_off: Callable[[], None]
    """Its docstring says what is so without it."""
    file: str
    """Of a test that notices, below tests/ …"""
    test: str
    """… and its name; one of its parameters is enough."""

    @property
    def name(self) -> str:
        """What `--without` calls it."""
        return self.turn_off.__name__.replace("_", "-")


_ALL = (
    Switch(
        rules.fencing,
        "core/test_fencing.py",
        "test_p3_the_right_agent_is_refused_with_another_lease_id",
    ),
    Switch(
        rules.agent_fencing,
        "distributor/test_outcomes.py",
        "test_p3_nobody_but_the_holder_can_end_a_lease",
    ),
    Switch(
        rules.repeated_outcomes,
        "distributor/test_work.py",
        "test_p3_a_repeated_outcome_has_the_same_verdict",
    ),
    Switch(
        rules.idempotency,
        "backends/test_keys.py",
        "test_p1_a_key_is_one_task_of_its_queue_whatever_became_of_it",
    ),
    Switch(
        rules.content,
        "distributor/test_submit.py",
        "test_p7_an_id_with_other_content_is_refused",
    ),
    Switch(
        rules.retry_cap,
        "distributor/test_outcomes.py",
        "test_p5_a_task_is_tried_four_times_and_its_errors_are_kept",
    ),
    Switch(
        rules.max_lost,
        "backends/test_time.py",
        "test_p5_the_third_lost_lease_ends_a_task",
    ),
    Switch(
        rules.hasty_releases,
        "distributor/test_outcomes.py",
        "test_p5_the_sixteenth_hasty_release_ends_a_task",
    ),
    Switch(
        rules.leases_per_session,
        "backends/test_lease_limits.py",
        "test_p7_a_session_that_holds_all_it_may_is_refused_until_it_gives_one_up",
    ),
    Switch(
        rules.run_timeout,
        "core/test_terms.py",
        "test_p4_no_heartbeat_extends_a_lease_past_its_run_timeout_and_one_term",
    ),
    Switch(
        rules.deadline_at_take,
        "backends/test_due.py",
        "test_p2_a_take_meets_overdue_tasks_before_they_are_ended_and_hands_out_the_rest",
    ),
    Switch(
        rules.waiting_limit,
        "backends/test_limits.py",
        "test_p7_as_many_tasks_wait_as_may",
    ),
    Switch(
        rules.resume,
        "backends/test_life.py",
        "test_p4_a_session_that_is_back_keeps_what_it_names_and_the_rest_is_undone",
    ),
    Switch(
        store.fsync,
        "backends/test_power_loss.py",
        "test_p1_p2_a_backend_goes_on_after_a_power_loss",
    ),
    Switch(
        store.owner_lock,
        "backends/test_opening.py",
        "test_a_second_owner_is_refused_and_told_who_has_it",
    ),
    Switch(
        store.checksums,
        "backends/test_checksums.py",
        "test_p6_data_that_is_not_what_was_submitted_is_not_handed_out",
    ),
    Switch(
        store.save_before_speak,
        "backends/test_saved_before_spoken.py",
        "test_p1_while_the_commit_is_under_way_nothing_is_said",
    ),
    Switch(
        store.undo,
        "backends/test_full_disk.py",
        "test_p6_a_commit_that_fails_undoes_the_whole_batch",
    ),
    Switch(
        store.savepoint,
        "backends/test_unwritten.py",
        "test_p1_all_or_nothing_that_is_refused_late_leaves_nothing_behind",
    ),
    Switch(
        store.fail_stop,
        "backends/test_failed_store.py",
        "test_p6_a_commit_that_works_again_changes_nothing_about_it",
    ),
    Switch(
        store.monotonic_age,
        "backends/test_time.py",
        "test_p2_a_wall_clock_that_goes_back_makes_nobody_older",
    ),
    Switch(
        store.pause_guard,
        "backends/test_time.py",
        "test_p4_a_pause_of_the_distributor_ends_no_lease",
    ),
    Switch(
        store.full_term,
        "backends/test_restart.py",
        "test_p4_a_restart_grants_every_live_lease_a_full_term",
    ),
    Switch(
        store.slots_in_all,
        "backends/test_riding_takes.py",
        "test_slots_in_all_count_what_the_session_holds_and_nothing_else",
    ),
    Switch(
        store.take_back,
        "distributor/test_fetch_undone.py",
        "test_an_answer_that_comes_in_the_moment_of_the_cancel_is_taken_back",
    ),
    Switch(
        store.retention,
        "backends/test_retention.py",
        "test_p7_each_end_is_kept_for_its_time",
    ),
    Switch(
        store.checkpoints,
        "backends/test_log.py",
        "test_p7_the_log_stays_small",
    ),
    Switch(
        peers.unwritten_leases,
        "distributor/test_fetch_undone.py",
        "test_an_answer_that_cannot_be_written_takes_the_task_back",
    ),
    Switch(
        peers.lost_leases,
        "distributor/test_work.py",
        "test_p4_an_agent_that_lost_a_lease_gets_no_more_until_it_says_hello",
    ),
    Switch(
        peers.goodbye,
        "distributor/test_work.py",
        "test_after_goodbye_outcomes_are_heard_and_nothing_is_leased",
    ),
    Switch(
        peers.cancelled_calls,
        "distributor/test_floods.py",
        "test_cancelled_calls_leave_the_connection_working",
    ),
    Switch(
        peers.message_size,
        "distributor/test_raw_calls.py",
        "test_a_message_over_the_limit_is_refused_at_its_prefix",
    ),
    Switch(
        peers.flood_rates,
        "distributor/test_floods.py",
        "test_a_flood_of_empty_data_ends_its_connection",
    ),
    Switch(
        peers.turns,
        "distributor/test_floods.py",
        "test_others_are_served_while_one_sends_thousands_of_frames",
    ),
    Switch(
        peers.keepalive,
        "distributor/test_peers.py",
        "test_a_frozen_peer_is_noticed_within_half_a_minute",
    ),
    Switch(
        peers.connections,
        "distributor/test_peers.py",
        "test_an_address_has_so_many_connections_and_no_more",
    ),
)

SWITCHES = {switch.name: switch for switch in _ALL}
assert len(SWITCHES) == len(_ALL)
