// Package policy decides what may stop or repeat an RPC: budgets of retries, limits of
// rate and of concurrency, and what is left of the process's memory. It knows numbers and
// times, and nothing of connections or frames.
package policy
