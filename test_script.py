"""The organiser's script on our pipe: four sections, the clock around the third.

python test_script.py [MODEL_FOLDER [DATA_FILE]]
"""

import sys
import time

from pipeline.errors import end_plainly

end_plainly()  # a wrong path ends with what is wrong with it
from pipeline.text_generation import KeyDataset, load, load_dataset  # noqa: E402

####### Section 1. Set up #######
model_id = sys.argv[1] if len(sys.argv) > 1 else "models/standin"
data_file = sys.argv[2] if len(sys.argv) > 2 else "data/sets/obqa.jsonl"
pipe = load(model_id)

generation_args = {
    "max_new_tokens": 500,
    "return_full_text": False,
    "temperature": 0.0,
    "do_sample": False,
}

####### Section 2. Warm up #######
pipe.warm_up()
messages = [{"role": "user", "content": "What about solving an 2x + 3 = 7 equation?"}]
output = pipe(messages, **generation_args)
print(output[0]["generated_text"])

####### Section 3. Load data and inference: performance #######
start = time.time()
data = load_dataset(data_file)
outs = pipe(KeyDataset(data, "message"), **generation_args)
end = time.time()

####### Section 4. Accuracy #######
print("===== Answers =====")
correct = 0
for i, out in enumerate(outs):
    correct_answer = data[i]["answer"]
    answer = out[0]["generated_text"].lstrip().replace("\n", "")
    if answer == correct_answer:
        correct += 1
    print(answer)

print("===== Perf result =====")
print("Elapsed_time: ", end - start)
print(f"Correctness: {correct}/{len(data)}")
