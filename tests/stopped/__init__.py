"""Real commands, stopped where they are: ``phases`` has the places, ``command`` is one, ``scene`` looks at the rest."""
