"""Draw nbs/images/card.png, which a link to the site shows elsewhere (1200x630), and nbs/images/favicon.png."""
import sys
from pathlib import Path
from PIL import Image, ImageDraw, ImageFont
from matplotlib import font_manager
from portrait_nb.style import ASPECT_COLOURS
from portrait_nb.synth import draw_portrait, image_table

images = Path(__file__).resolve().parent.parent/'nbs'/'images'
SIZE,BLUE,WHITE = (1200, 630),'#24476b','#ffffff'
TITLE = 'portrait_nb'
SENTENCE = 'One network looks at a portrait and says'
QUESTIONS = {'appearance': 'who they are, how they look', 'posture': 'what they do', 'emotion': 'what they feel'}
SEED,WIDTH,GAP = 3,124,12   # of the people; of a picture; between two

def font(points, weight='normal'):
    face = font_manager.FontProperties(family='DejaVu Sans', weight=weight)
    return ImageFont.truetype(font_manager.findfont(face), points)

def faces(n, seed=SEED):
    "`n` portraits of different people"
    table = image_table('tiny', seed)
    clear = table[(table.identity!='')&(table.spoilt=='none')]
    rows = clear.drop_duplicates('identity').head(n)
    for row in rows.to_dict('records'):
        yield Image.fromarray(draw_portrait(row, (500, 250), seed))

def card():
    page = Image.new('RGB', SIZE, BLUE)
    draw = ImageDraw.Draw(page)
    draw.text((60, 44), TITLE, WHITE, font(76, 'bold'))
    draw.text((62, 152), SENTENCE, WHITE, font(31))
    x = 62
    for aspect,words in QUESTIONS.items():
        draw.rounded_rectangle((x, 212, x+draw.textlength(words, font(25))+32, 258), 10, ASPECT_COLOURS[aspect])
        draw.text((x+16, 219), words, WHITE, font(25))
        x += draw.textlength(words, font(25))+48
    for i,o in enumerate(faces(8)):
        page.paste(o.resize((WIDTH, 2*WIDTH), Image.LANCZOS), (62+i*(WIDTH+GAP), 318))
    return page

def favicon(side=64):
    icon = Image.new('RGBA', (4*side, 4*side))
    draw = ImageDraw.Draw(icon)
    draw.rounded_rectangle((0, 0, 4*side-1, 4*side-1), side*.8, BLUE)
    draw.ellipse((side*1.25, side*.65, side*2.75, side*2.15), WHITE)
    draw.pieslice((side*.75, side*2.35, side*3.25, side*4.85), 180, 360, WHITE)
    return icon.resize((side, side), Image.LANCZOS)

def main():
    card().save(images/'card.png', optimize=True)
    favicon().save(images/'favicon.png', optimize=True)

if __name__=='__main__': main()
