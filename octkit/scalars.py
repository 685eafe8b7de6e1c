"""A training's log as TensorBoard scalars, each epoch once however often the training was stopped.

The file is written anew from the log when a training starts or goes on, and grows by one epoch at a time.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from octkit.files import saying_disk_full


class Scalars:
    """The events file of a folder: everything in `log` (rows with "epoch" and numbers), and what `add` appends."""

    def __init__(self, folder: Path, log: Sequence[Mapping[str, float | None]]):
        from tensorboard.compat.proto import event_pb2, summary_pb2  # slow to import, and needed only here

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        for path in Path(folder).glob("events.out.tfevents.*"):
            path.unlink()
        # Another name than before: a TensorBoard that runs would go on reading the file that is gone.
        self.path = Path(folder) / f"events.out.tfevents.{time.time_ns()}.octkit"
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # a TensorBoard that runs forgets what it has
        self._write([self._event(file_version="brain.Event:2"), self._event(step=1, session_log=start)])
        for row in log:
            self.add(row)

    def add(self, row: Mapping[str, float | None]) -> None:
        """Append one epoch's numbers; those that are None are left out."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in row.items()
                  if name != "epoch" and value is not None]
        self._write([self._event(wall_time=time.time(), step=row["epoch"], summary=self._summary(value=values))])

    def _write(self, events: Sequence) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        # torch's SummaryWriter writes in a thread of its own, where a full disk is an error that nobody sees.
        with saying_disk_full(self.path), open(self.path, "ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
