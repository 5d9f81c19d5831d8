package main

import "context"

var negativeTools = []string{"negative-client"}
var negativeCases = []string{"goaway"}

func runNegative(ctx context.Context, r *rig, s suite) (tally, error) { return tally{}, nil }
