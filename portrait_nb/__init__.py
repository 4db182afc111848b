__version__ = "0.1.0"
from portrait_nb import quiet
