"""Real commands, stopped where they are: ``phases`` has the places, ``warm`` runs them, ``scene`` looks at the rest."""
