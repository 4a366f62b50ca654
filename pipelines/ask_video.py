"""Ask one long video some questions.

    python pipelines/ask_video.py video.mp4 "When does the red square appear?" "Where is the star?"

Change what is used in `configs/`; this is the whole program.
"""

import sys

import streamvlm


def main(video: str, *questions: str) -> None:
    """Ingest a video and print each answer with the moments it rests on."""
    with streamvlm.load("default") as vlm:
        vlm.ingest(video)
        for question in questions:
            answer = vlm.ask(question)
            print(f"{question}\n  {answer}  (sure: {answer.confidence:.2f})")
            for found in answer.evidence:
                record = found.record
                print(f"  {record.start:8.1f} s – {record.end:.1f} s  score {found.score:.2f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
