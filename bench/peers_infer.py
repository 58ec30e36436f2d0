"""Runtimes that only predict, from the ONNX file that PyTorch exports: ONNX Runtime and OpenVINO, both in float32."""

import harness


class _FromOnnx:
    """What both share: `_open(path)` and `_predict(x)` are theirs."""

    def __init__(self, case, threads):
        self.case, self.threads = case, threads
        self.x = next(iter(case.batches()))[0]

    def load(self, path):
        self.path = path

    def prepare(self):
        harness.reset_peak()

    def check(self):
        def first():
            self._open(self.path)
            return self._predict(self.x)

        seconds, value = harness.timed(first)
        return [value], seconds

    def tune(self):
        """Both choose by themselves."""

    def step(self):
        return harness.timed(lambda: self._predict(self.x))[0]


class OnnxRuntime(_FromOnnx):
    def __init__(self, case, threads):
        import onnxruntime

        super().__init__(case, threads)
        self.library = onnxruntime

    def _open(self, path):
        options = self.library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = self.library.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs: it is another library's turn then
        self.session = self.library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def _predict(self, x):
        return self.session.run(None, {self.input: x})[0]

    def about(self):
        return {"peak_mib": harness.peak_mib(), "isa": f"MLAS, at most {harness.host_isa()}", "threads": self.threads,
                "version": self.library.__version__, "config": "all graph optimizations"}


class OpenVino(_FromOnnx):
    def __init__(self, case, threads):
        import openvino

        super().__init__(case, threads)
        self.library = openvino

    def _open(self, path):
        self.core = self.library.Core()
        self.model = self.core.compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                                                           "INFERENCE_PRECISION_HINT": "f32"})
        self.request = self.model.create_infer_request()

    def _predict(self, x):
        return self.request.infer([x], share_inputs=True)[0]

    def about(self):
        return {"peak_mib": harness.peak_mib(), "isa": f"oneDNN, at most {harness.host_isa()}", "threads": self.threads,
                "version": self.library.__version__.split("-")[0], "config": "latency, f32"}
