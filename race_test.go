//go:build race

package main

// slowdown is by how much the race detector slows down what is measured.
const slowdown = 6
