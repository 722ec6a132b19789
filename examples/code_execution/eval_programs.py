"""Do the programs that a model wrote pass their tests?"""

from doteval import Result, foreach
from doteval.evaluators import evaluator
from doteval.metrics import accuracy


@evaluator(metrics=accuracy())
def passes_tests(run):
    return run.end == "passed"


@evaluator(metrics=())
def end(run):
    # A score may be a word. It has no metric, but `doteval show --group-by score.end` counts it.
    return run.end


# Each row waits for another process, so several run at once, in threads.
@foreach("task,answer,test", "programs.jsonl", concurrency=4)
def eval_programs(task, answer, test, sandbox, tmp_path):
    # The column `answer` is what a model replied. Ask yours here.
    run = sandbox.run(f"{answer}\n{test}\n", tmp_path)
    return Result(passes_tests(run), end(run), prompt=task, model_response=answer, metadata={"output": run.output})
