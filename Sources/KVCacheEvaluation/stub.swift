extension EvaluationReport { public var html: String { "" } }
