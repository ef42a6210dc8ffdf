"""The simulation bites: every safety rule that is broken on purpose is noticed within a few hundred histories."""

import pytest
from simulation import mutations
from simulation.many import executor, first_failure

SEEDS = range(400)
# Not among them: a record of a room that another took during a crash. Of thousands of histories none has it; unit tests
# do (test_two_records_of_one_room_make_one_pod, and that of a gang).


@pytest.mark.timeout(900)
def test_every_mutation_is_noticed(capsys):
    with executor(2) as workers:
        running = {name: workers.submit(first_failure, name, SEEDS) for name in mutations.ALL}
        found = {name: future.result() for name, future in running.items()}
    with capsys.disabled():
        print()
        for name, result in found.items():
            print(f"{name:38} {f'{result[0]:3} histories: {result[1][:120]}' if result else 'NOT NOTICED'}")
    assert not [name for name, result in found.items() if result is None]
    assert not [
        result for result in found.values() if result and " broke:" in result[1]
    ]  # a mutation that is no longer one
