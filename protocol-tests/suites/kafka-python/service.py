"""Replaces a module that kafka-python's test/integration/fixtures.py imports but its source distribution lacks: a running broker."""


class ExternalService:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def open(self):
        pass

    start = stop = close = dump_logs = open


class SpawnedService:
    def __init__(self, *_arguments):
        raise RuntimeError("the broker is started outside")
