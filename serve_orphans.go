package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sluice/cluster"
	"sluice/store"
)

const (
	// wordPatience is how long a gateway must be gone before what its files said counts no
	// more than what the files of others say: a restart takes less.
	wordPatience = time.Minute
	// wordEvery is how often that is looked at.
	wordEvery = 15 * time.Second
	// maxNamed is how many objects a problem names.
	maxNamed = 3
)

// whoIsGone tells of each node whether it has been gone for long; nil while this node has
// nobody to compare with, or has not been among others for long itself.
func whoIsGone(members []cluster.Member, now time.Time) func(node string) bool {
	there, among := map[string]bool{}, 0
	for _, m := range members {
		switch {
		case m.Self && now.Sub(m.Since) < wordPatience:
			return nil
		case m.State == cluster.Alive || now.Sub(m.Since) < wordPatience:
			there[m.ID] = true
		}
		if !m.Self && m.State == cluster.Alive {
			among++
		}
	}
	if among == 0 {
		return nil
	}
	return func(node string) bool { return !there[node] }
}

// redeclare tells the others what files here say, where they obey the file of a gateway
// that is gone, until ctx is done.
func (n *node) redeclare(ctx context.Context) error {
	if n.peers == nil {
		return nil
	}
	ticker := time.NewTicker(wordEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		gone := whoIsGone(n.peers.cluster.Members(), time.Now())
		if gone == nil {
			continue
		}
		author := store.Author{Actor: "files", Via: "file", Reason: "the gateway whose file said otherwise is gone"}
		if _, err := n.store.Redeclare(ctx, author, gone); err != nil && ctx.Err() == nil {
			n.log.Warn("files not declared anew", "error", err)
		}
	}
}

// orphanProblems name what only the files of gateways declare that are gone.
func (n *node) orphanProblems() []string {
	if n.peers == nil {
		return nil
	}
	members := n.peers.cluster.Members()
	gone := whoIsGone(members, time.Now())
	if gone == nil {
		return nil
	}
	return describeOrphans(n.store.Snapshot().Orphans(gone), members)
}

func describeOrphans(orphans []*store.Object, members []cluster.Member) []string {
	if len(orphans) == 0 {
		return nil
	}
	since := map[string]string{}
	for _, m := range members {
		since[m.ID] = " since " + m.Since.UTC().Format(time.RFC3339)
	}
	var named []string
	for _, o := range orphans[:min(len(orphans), maxNamed)] {
		named = append(named, fmt.Sprintf("%s by %s of node %s, gone%s", o.ID, o.Owner.File, o.FileNode, since[o.FileNode]))
	}
	more := ""
	if n := len(orphans) - len(named); n > 0 {
		more = fmt.Sprintf("; and %d more", n)
	}
	return []string{fmt.Sprintf("%d objects are declared by files of gateways that are gone: %s%s; unless another gateway has such a file, sluice delete --take-over removes them",
		len(orphans), strings.Join(named, "; "), more)}
}
