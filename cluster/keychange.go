package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Keys are the answers of all live members to what keys they have.
func (c *Cluster) Keys(ctx context.Context) []KeyAnswer {
	return c.keyAnswers(c.loop.askKeys(ctx, keyList, ""))
}

// AddKey has all live members know a key, 32 bytes in base64. Add a key everywhere, then
// use it, then remove the one of before.
func (c *Cluster) AddKey(ctx context.Context, key string) ([]KeyAnswer, error) {
	k, err := parseKey(strings.TrimSpace(key))
	if err != nil {
		return nil, fmt.Errorf("add a key: %w", err)
	}
	return c.withAbsent(c.keyAnswers(c.loop.askKeys(ctx, keyAdd, k.text()))), nil
}

// UseKey makes a key the one that all live members send with: its fingerprint says which.
// It is refused as long as one of them does not have it.
func (c *Cluster) UseKey(ctx context.Context, key string) ([]KeyAnswer, error) {
	return c.changeKeys(ctx, keyUse, key, func(a KeyAnswer, print string) string {
		if !slices.Contains(a.Keys, print) {
			return "does not have it: add it first"
		}
		return ""
	})
}

// RemoveKey has all live members forget a key that none of them sends with.
func (c *Cluster) RemoveKey(ctx context.Context, key string) ([]KeyAnswer, error) {
	return c.changeKeys(ctx, keyRemove, key, func(a KeyAnswer, print string) string {
		if len(a.Keys) > 0 && a.Keys[0] == print {
			return "sends with it: use another first"
		}
		return ""
	})
}

// changeKeys asks all live members what keys they have and, when none of them objects,
// changes them.
func (c *Cluster) changeKeys(ctx context.Context, verb keyVerb, key string, objects func(a KeyAnswer, print string) string) ([]KeyAnswer, error) {
	print, err := printOf(key)
	if err != nil {
		return nil, fmt.Errorf("change the keys: %w", err)
	}
	known := c.Keys(ctx)
	anywhere := false
	for _, a := range known {
		why := ""
		if a.Err != nil {
			why = "did not answer: " + a.Err.Error()
		} else {
			anywhere = anywhere || slices.Contains(a.Keys, print)
			why = objects(a, print)
		}
		if why != "" {
			return known, fmt.Errorf("change the keys: key %s: node %s %s", print, a.Member.ID, why)
		}
	}
	if !anywhere {
		return known, fmt.Errorf("change the keys: no node has a key %s", print)
	}
	return c.withAbsent(c.keyAnswers(c.loop.askKeys(ctx, verb, print))), nil
}

// withAbsent adds those that are known and do not live to the answers to a change of keys:
// should they come back, they have the keys of before.
func (c *Cluster) withAbsent(answers []KeyAnswer) []KeyAnswer {
	for _, m := range c.membership.Members() {
		asked := slices.ContainsFunc(answers, func(a KeyAnswer) bool { return a.Member.ID == m.ID })
		if m.State != Alive && !asked {
			answers = append(answers, KeyAnswer{Member: m, Warning: fmt.Sprintf("%s: it needs the new key file before it comes back", m.State)})
		}
	}
	return answers
}

// keyAnswers are what was replied, in the order of the nodes, also of those that are not
// known any more.
func (c *Cluster) keyAnswers(replies map[string]keyReply) (answers []KeyAnswer) {
	known := c.known(nil)
	for _, id := range slices.Sorted(maps.Keys(replies)) {
		reply := replies[id]
		answers = append(answers, KeyAnswer{Member: known.member(id), Keys: reply.Keys, Warning: reply.Warning, Err: reply.Err})
	}
	return answers
}
