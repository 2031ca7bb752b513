from r1mm.distill.prompts import PROMPTS, messages_of

V1 = "Answer the question according to scene description.\n\nA red cube\nQuestion:\nHow many?"
# Deep-Agent/R1-V@bbbbe3d:src/distill_r1/query_r1.py, as it comes out there.
V2 = (
    V1 + "\nInstructions:\n1. Carefully analyze the scene description\n2. Provide your reasoning if necessary\n"
    "3. For the final answer, start a new line with '**The answer is: **' followed by your answer\n"
)


def test_prompts_are_upstreams() -> None:
    assert PROMPTS["v1"]("A red cube", "How many?") == V1
    assert PROMPTS["v2"]("A red cube", "How many?") == V2


def test_a_system_prompt_stands_first_and_none_is_none() -> None:
    assert messages_of("p") == [{"role": "user", "content": "p"}]
    assert messages_of("p", "s") == [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]
