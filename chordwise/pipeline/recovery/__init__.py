"""Recovery: finds work that has stopped and sends it again; every rule can be repeated safely."""
