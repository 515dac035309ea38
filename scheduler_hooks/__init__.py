"""From the `#STAGE` lines of a job script to the calls that a scheduler's hooks make."""
