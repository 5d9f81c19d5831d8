package cli

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	adminv1 "sluice/admin/v1"
)

// diffContext is how many lines around a change are shown.
const diffContext = 3

// writeDifference shows what a change makes of an object, as a unified diff of
// YAML; from and to name its sides.
func writeDifference(w io.Writer, change *adminv1.Change, from, to string) error {
	before, after := change.GetBefore(), change.GetAfter()
	if before == nil && after == nil { // the server says so in a warning, too
		_, err := fmt.Fprintf(w, "%s %s (with what it was and is, the answer would be too long)\n", refID(change.GetRef()), doneWord(change.GetAction()))
		return err
	}
	owned := before.GetOwner() != nil && after.GetOwner() != nil && !proto.Equal(before.GetOwner(), after.GetOwner())
	a, err := diffLines(before, owned)
	if err != nil {
		return err
	}
	b, err := diffLines(after, owned)
	if err != nil {
		return err
	}
	id := refID(change.GetRef())
	return difflib.WriteUnifiedDiff(w, difflib.UnifiedDiff{
		A: a, B: b, Context: diffContext,
		FromFile: sideName(id, from, a), ToFile: sideName(id, to, b),
	})
}

func sideName(id, side string, lines []string) string {
	if len(lines) == 0 {
		side = "nothing"
	}
	return fmt.Sprintf("%s (%s)", id, side)
}

// diffLines is an object as it is compared: what it declares, and what lies beside
// that, without what the server keeps for itself.
func diffLines(o *adminv1.Object, owned bool) ([]string, error) {
	if o == nil || o.GetDeleted() {
		return nil, nil
	}
	if o.GetManifest() == "" {
		return []string{"(left out: with it the answer would be too long)\n"}, nil
	}
	n, err := readManifest(o.GetManifest())
	if err != nil {
		return nil, err
	}
	bare(n, cmp.Or(o.GetCreated(), o.GetLastChange().GetTime()))
	if o.GetRef().GetKind() == schemaKind {
		readable(lookup(n, "spec"))
	}
	state, err := stateView(o.GetState())
	if err != nil {
		return nil, err
	}
	for _, split := range items(state, "splits") {
		remove(split, "since") // the change itself says when, and who
		remove(split, "by")
	}
	if len(state.Content) > 0 {
		set(n, "state", state)
	}
	if owned {
		set(n, "owner", text(ownerText(o.GetOwner())))
	}
	data, err := marshalYAML(n)
	if err != nil {
		return nil, err
	}
	return lines(string(data)), nil
}

// readable puts methods and types in the place of descriptors in base64.
func readable(spec *yaml.Node) {
	set, err := readBase64(word(spec, "descriptorSet"))
	if err != nil {
		return // of a later version: as it is
	}
	setView(spec, set)
}

// setView shows each part by a checksum, and of methods how they are called.
func setView(spec *yaml.Node, descriptors *descriptorSet) {
	n := mapping()
	set(n, "all", text(fmt.Sprintf("%d bytes, %s", len(descriptors.data), checksum(descriptors.data))))
	methods := map[string]*adminv1.Method{}
	for _, m := range descriptors.methods() {
		methods[m.GetName()] = m
	}
	parts := descriptors.parts()
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		if m := methods[name]; m != nil {
			line := fmt.Sprintf("%s, %s to %s", methodKind(m), m.GetInput(), m.GetOutput())
			if bindings := bindingsText(m); bindings != "" {
				line += ", " + bindings
			}
			set(n, name, text(line))
			continue
		}
		data, _ := proto.MarshalOptions{Deterministic: true}.Marshal(parts[name]) // it was just read
		set(n, name, text(checksum(data)))
	}
	set(spec, "descriptorSet", n)
}

// checksum is enough of one to see that two texts differ.
func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return fmt.Sprintf("sha256 %x", sum[:8])
}

// stateView is what lies beside the declaration, without what is not so: most
// objects have nothing there.
func stateView(state *adminv1.State) (*yaml.Node, error) {
	if state == nil {
		return mapping(), nil
	}
	n, err := view(state)
	if err != nil {
		return nil, err
	}
	for _, split := range items(n, "splits") {
		removeFalse(split, "turns")
	}
	removeFalse(n, "disabled")
	removeFalse(n, "drained")
	return n, nil
}

func removeFalse(n *yaml.Node, key string) {
	if word(n, key) == "false" {
		remove(n, key)
	}
}

// lines are a text's lines, each with its end.
func lines(s string) []string {
	all := strings.SplitAfter(s, "\n")
	if all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	return all
}
