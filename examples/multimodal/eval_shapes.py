"""Does a model call the right tool with the right arguments, for a text and for a picture?"""

import base64
import io
import json

from PIL import Image, ImageDraw

from doteval import Result, foreach
from doteval.evaluators import ast_evaluation

TOOL = {
    "name": "draw",
    "description": "Draw a shape.",
    "parameters": {
        "type": "object",
        "properties": {
            "shape": {"type": "string", "enum": ["circle", "square"]},
            "colour": {"type": "string"},
            "size": {"type": "integer", "description": "Pixels across."},
        },
        "required": ["shape", "colour"],
    },
}


def picture(shape, colour):
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    paint = draw.ellipse if shape == "circle" else draw.rectangle
    paint((16, 16, 48, 48), fill=colour)
    return image


# In `expected`, an argument has a list of right values, and "" among them says that it may be left out.
# `mock` tells the mock server what to call; two of its calls are wrong. A real model needs no such column.
ROWS = [
    {
        "text": "Draw a red circle.",
        "expected": {"draw": {"shape": ["circle"], "colour": ["red"], "size": [""]}},
        "mock": '[[tool:draw {"shape": "circle", "colour": "Red"}]]',
    },
    {
        "text": "Draw a blue square, 40 pixels wide.",
        "expected": {"draw": {"shape": ["square"], "colour": ["blue"], "size": [40]}},
        "mock": '[[tool:draw {"shape": "square", "colour": "blue", "size": "40"}]]',
    },
    {
        "text": "Draw what you see on the picture.",
        "image": picture("circle", "green"),
        "expected": {"draw": {"shape": ["circle"], "colour": ["green"], "size": [32, ""]}},
        "mock": '[[tool:draw {"shape": "circle", "colour": "green", "size": 32}]]',
    },
    {
        "text": "Draw what you see on the picture.",
        "image": picture("square", "orange"),
        "expected": {"draw": {"shape": ["square"], "colour": ["orange"], "size": [32, ""]}},
        "mock": '[[tool:draw {"shape": "circle", "colour": "orange"}]]',
    },
]


def as_message(text, image):
    content = [{"type": "text", "text": text}]
    if image is not None:
        png = io.BytesIO()
        image.save(png, format="PNG")
        url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
        content.append({"type": "image_url", "image_url": {"url": url}})
    return {"role": "user", "content": content}


@foreach("text,image,expected,mock", ROWS)
async def eval_shapes(text, image, expected, mock, async_openai_client):
    messages = [{"role": "system", "content": f"Use the tool. {mock}"}, as_message(text, image)]
    reply = await async_openai_client.chat.completions.create(
        model="mock-vision",
        messages=messages,
        tools=[{"type": "function", "function": TOOL}],
        tool_choice="required",
        temperature=0,
    )
    calls = [
        {call.function.name: json.loads(call.function.arguments)} for call in reply.choices[0].message.tool_calls or []
    ]
    return Result(ast_evaluation(calls, expected, TOOL), prompt=messages, model_response=calls)
