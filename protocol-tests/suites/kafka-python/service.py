"""What kafka-python's test/integration/fixtures.py imports and its source distribution leaves out: a broker that runs already."""


class ExternalService:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def open(self):
        pass

    start = stop = close = dump_logs = open


class SpawnedService:
    def __init__(self, *_arguments):
        raise RuntimeError("the broker is started outside")
