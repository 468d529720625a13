"""What may happen to a run, what is promised of it then, and the tests that make it happen."""

from typing import NamedTuple


class Fault(NamedTuple):
    """A fault that is real (a signal, a byte, an error of the system), its promise, and where it is proved."""

    what: str
    promise: str
    tests: tuple[str, ...]


SAME_BITS = "the same command ends in the bits of a run that nothing interrupts"
CARD = (
    Fault(
        "SIGKILL at any write, flush or rename of a checkpoint",
        f"a whole checkpoint is there; {SAME_BITS}; no stray file stays",
        (
            "tests/runtime/test_checkpoint.py::test_a_kill_at_every_call_of_a_save_leaves_a_complete_checkpoint",
            "tests/test_pipeline.py::test_kills_in_search_and_training_change_no_bit",
        ),
    ),
    Fault(
        "SIGKILL of any process of several, or of the command that has started them",
        f"the others end within seconds, a line names the lost one, all are started again; {SAME_BITS}",
        ("tests/test_several_processes.py::test_kills_and_signals_to_any_process_of_any_number_of_them_change_no_bit",),
    ),
    Fault(
        "another number of processes at each start",
        SAME_BITS,
        (
            "tests/test_several_processes.py::test_two_processes_make_the_bits_of_one",
            "tests/test_several_processes.py::test_kills_and_signals_to_any_process_of_any_number_of_them_change_no_bit",
        ),
    ),
    Fault(
        "a process of several hangs, or its host is gone",
        "the others wait no longer than --lost_after, then a line names it and all end",
        ("tests/runtime/test_distributed.py::test_a_process_that_is_lost_is_named_within_the_deadline",),
    ),
    Fault(
        "SIGTERM, SIGINT or SIGUSR1, to any process, in a step, a save or a validation",
        f"a checkpoint at a whole step, exit code 75; {SAME_BITS}; a second Ctrl-C leaves at once",
        (
            "tests/test_several_processes.py::test_kills_and_signals_to_any_process_of_any_number_of_them_change_no_bit",
            "tests/runtime/test_signals.py::test_a_signal_in_the_middle_of_a_save_leaves_a_whole_checkpoint",
            "tests/training/test_training_stage.py::test_a_stop_in_a_wait_for_videos_ends_it_and_loses_nothing",
            "tests/runtime/test_signals.py::test_a_second_ctrl_c_leaves_at_once_even_in_a_long_call",
        ),
    ),
    Fault(
        "a checkpoint cut off, emptied, with a bit flipped, with a file missing or of another run",
        "seen by its hashes, the one before is used with a warning; where none is whole an error, no silent new start",
        (
            "tests/runtime/test_checkpoint.py::test_a_flipped_bit_in_any_byte_is_noticed_and_the_previous_checkpoint_used",
            "tests/runtime/test_checkpoint.py::test_damage_falls_back_with_a_warning_and_without_a_valid_one_is_an_error",
        ),
    ),
    Fault(
        "a full disk",
        f"the old checkpoint is whole, one line says what to do; {SAME_BITS}",
        ("tests/runtime/test_checkpoint.py::test_a_full_disk_leaves_the_old_checkpoint_and_a_clear_error",),
    ),
    Fault(
        "another config at the resumption",
        "refused with each field that differs, unless it changes no number",
        (
            "tests/test_cli.py::test_the_whole_job_resumes_and_refuses_another_config",
            "tests/test_settings.py::test_differences_name_each_field_old_and_new",
        ),
    ),
    Fault(
        "other threads, versions, kernels or another processor at the resumption",
        "threads stay as they were; the rest is refused with each field, or accepted and shown in the report",
        ("tests/runtime/test_drift.py::test_a_run_goes_on_as_it_was_begun",),
    ),
    Fault(
        "another number of decoding processes at the resumption",
        SAME_BITS,
        (
            "tests/training/test_training_stage.py"
            "::test_a_training_by_the_whole_recipe_resumes_in_the_same_bits_with_any_workers",
        ),
    ),
    Fault(
        "a decoding process is killed",
        "one line, no hang, no other video in its place",
        ("tests/data/clips/test_loader.py::test_a_worker_that_is_killed_stops_the_epoch",),
    ),
    Fault(
        "a loss or a gradient that is no number",
        "stopped before the step is made; epoch, step, process and videos are named, no checkpoint has it",
        (
            "tests/search/test_search_stage.py::test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_videos",
            "tests/test_several_processes.py::test_what_diverges_in_one_process_ends_all_and_names_it",
        ),
    ),
    Fault(
        "two runs in one directory",
        "the second is refused and told who is first",
        (
            "tests/runtime/test_lock.py::test_the_second_process_is_refused_and_told_who_is_first",
            "tests/test_several_processes.py::test_kills_and_signals_to_any_process_of_any_number_of_them_change_no_bit",
        ),
    ),
    Fault(
        "a crafted checkpoint, config or genotype",
        "nothing in it is executed, one line says what is wrong",
        (
            "tests/runtime/test_checkpoint.py::test_crafted_tensors_execute_nothing_and_are_one_line_errors",
            "tests/test_settings.py::test_a_crafted_file_executes_nothing_and_is_one_line",
            "tests/space/test_genotype.py::test_what_is_no_genotype_is_refused",
        ),
    ),
    Fault(
        "class names with markup, control characters or formulas",
        "inert in the page, the terminal and csv files",
        (
            "tests/report/test_page.py::test_hostile_class_names_are_inert",
            "tests/test_cli.py::test_control_characters_and_line_breaks_stay_out_of_the_terminal",
        ),
    ),
)
