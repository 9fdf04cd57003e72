"""What in a data set could make the numbers of a network a lie, found before anything is trained."""
