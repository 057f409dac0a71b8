"""100 records of 4,020 letters with answers of 16, of which models with drawn weights make a token each."""

import json
import random

random.seed(1)
letters = "abcdefghijklmnopqrstuvwxyz"
for _ in range(100):
    context = "".join(random.choice(letters + "     ") for _ in range(4020))
    answer = "".join(random.choice(letters) for _ in range(16))
    print(json.dumps({"question": "What is it?", "context": context, "answers": [answer]}))
