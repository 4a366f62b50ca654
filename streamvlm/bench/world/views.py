"""What of a film is shown to who is asked about it."""

from __future__ import annotations

from dataclasses import dataclass

from streamvlm.bench.world import Film, Scene, Thing


@dataclass(frozen=True, slots=True)
class View:
    """What of a film is shown: some of its moments, perhaps under other times."""

    film: Film
    """What the moments are taken from."""
    moments: tuple[int, ...]
    """Seconds of the film that are shown, increasing."""
    shift: int = 0
    """What is added to a second of the film to give the time that is shown with it."""

    @property
    def scenes(self) -> list[Scene]:
        """The scenes of which something is shown."""
        found = [self.film.scene_at(moment) for moment in self.moments]
        return [scene for index, scene in enumerate(found) if scene not in found[:index]]

    @property
    def sightings(self) -> dict[Thing, list[int]]:
        """Each thing that is seen → the moments in which it is."""
        seen = {
            thing: [moment for moment in self.moments if thing.is_seen(moment)]
            for scene in self.scenes
            for thing in scene.things
        }
        return {thing: moments for thing, moments in seen.items() if moments}
