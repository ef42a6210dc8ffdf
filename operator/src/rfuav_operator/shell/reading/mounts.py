"""Which jobs a volume matters to: claims, volumes and the jobs that name claims come in, the jobs to look at go out."""

from collections.abc import Iterable

from rfuav_operator.core.model import Claim, Uid, Volume

ClaimKey = tuple[str, str]  # namespace, name


class Mounts:
    """The claims and volumes, and the jobs that name them."""

    def __init__(self) -> None:
        self.claims: dict[ClaimKey, Claim] = {}
        self.volumes: dict[str, Volume] = {}
        self._bound: dict[str, set[ClaimKey]] = {}  # volume -> claims that name it
        self._users: dict[ClaimKey, set[Uid]] = {}  # claim -> jobs that name it
        self._uses: dict[Uid, tuple[str, ...]] = {}

    def note(self, uid: Uid, namespace: str, claims: tuple[str, ...]) -> None:
        """Remember which claims a job names, so that it is looked at when one of them changes."""
        old = self._uses.get(uid, ())
        if old == claims:
            return
        for name in old:
            users = self._users[namespace, name]
            users.discard(uid)
            if not users:
                del self._users[namespace, name]
        self._uses.pop(uid, None)
        if claims:
            self._uses[uid] = claims
        for name in claims:
            self._users.setdefault((namespace, name), set()).add(uid)

    def claim_changed(self, old: Claim | None, new: Claim | None) -> Iterable[Uid]:
        """The jobs to look at."""
        claim = new or old
        if claim is None or old == new:
            return ()
        key = claim.namespace, claim.name
        if old is not None and old.volume:
            named = self._bound.get(old.volume, set())
            named.discard(key)
            if not named:
                self._bound.pop(old.volume, None)
        if new is None:
            del self.claims[key]
        else:
            self.claims[key] = new
            if new.volume:
                self._bound.setdefault(new.volume, set()).add(key)
        return self._users.get(key, ())

    def volume_changed(self, old: Volume | None, new: Volume | None) -> Iterable[Uid]:
        """The jobs to look at."""
        volume = new or old
        if volume is None or old == new:
            return ()
        if new is None:
            del self.volumes[volume.name]
        else:
            self.volumes[volume.name] = new
        return {uid for key in self._bound.get(volume.name, ()) for uid in self._users.get(key, ())}
