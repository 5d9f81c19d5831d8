package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	adminv1 "sluice/admin/v1"
)

// format is the value of -o.
type format struct {
	is      string
	allowed []string
}

const (
	asTable = "table"
	asJSON  = "json"
	asYAML  = "yaml"
	asName  = "name"
)

func (f *format) String() string { return f.is }
func (f *format) Type() string   { return "format" }

func (f *format) Set(s string) error {
	if !slices.Contains(f.allowed, s) {
		return fmt.Errorf("want %s", list(f.allowed, "or"))
	}
	f.is = s
	return nil
}

// addFormat declares -o; named adds the format name.
func (p *program) addFormat(cmd *cobra.Command, named bool) *format {
	f := &format{is: asTable, allowed: []string{asTable, asJSON, asYAML}}
	if named {
		f.allowed = append(f.allowed, asName)
	}
	cmd.Flags().VarP(f, "output", "o", "`format`: "+list(f.allowed, "or"))
	p.complete(cmd, "output", fixed(f.allowed...))
	return f
}

// structured prints a message as -o json or yaml.
func (c *call) structured(f *format, m proto.Message) error {
	n, err := view(m)
	if err != nil {
		return err
	}
	return c.printNode(f, n)
}

func (c *call) printNode(f *format, n *yaml.Node) error {
	if f.is == asJSON {
		return writeJSON(c.out, n, true)
	}
	return writeYAML(c.out, n)
}

// printObjects prints objects as manifests: in YAML one after the other, in JSON
// as a List, both of which apply takes.
func (c *call) printObjects(f *format, objects []*adminv1.Object, withStatus bool) error {
	var nodes []*yaml.Node
	for _, o := range objects {
		n, err := objectView(o)
		if err != nil {
			return err
		}
		if !withStatus {
			bare(n, o.GetCreated())
		}
		nodes = append(nodes, n)
	}
	if f.is == asYAML {
		return writeYAML(c.out, nodes...)
	}
	listed := mapping()
	set(listed, "apiVersion", text("v1"))
	set(listed, "kind", text("List"))
	set(listed, "items", &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: nodes})
	return writeJSON(c.out, listed, true)
}

// done says in words what an action did.
var done = map[string]string{
	"create": "created", "update": "updated", "delete": "deleted", "split": "split",
	"drain": "drained", "undrain": "undrained", "disable": "disabled", "enable": "enabled",
	"adopt": "adopted", "release": "released", "rollback": "rolled back", "restore": "restored",
	"settle": "settled",
}

func doneWord(action string) string {
	if word, ok := done[action]; ok {
		return word
	}
	return action
}

// printWrite prints what a write did, and fails when somebody has not confirmed it who
// was waited for.
func (c *call) printWrite(f *format, w *adminv1.WriteResponse, dryRun bool) error {
	if err := c.printChanges(f, w, dryRun); err != nil {
		return err
	}
	return c.confirmed(w.GetPeers())
}

// printChanges prints what a write did, one object a line.
func (c *call) printChanges(f *format, w *adminv1.WriteResponse, dryRun bool) error {
	c.warn(w.GetWarnings())
	switch f.is {
	case asJSON, asYAML:
		return c.structured(f, w)
	case asName:
		for _, change := range w.GetChanges() {
			fmt.Fprintln(c.out, refID(change.GetRef()))
		}
		return nil
	}
	suffix := ""
	if dryRun {
		suffix = " (dry run)"
	}
	for _, change := range w.GetChanges() {
		fmt.Fprintf(c.out, "%s %s%s%s\n", refID(change.GetRef()), doneWord(change.GetAction()), stateAfter(change), suffix)
	}
	for _, ref := range w.GetUnchanged() {
		fmt.Fprintf(c.out, "%s unchanged\n", refID(ref))
	}
	if len(w.GetChanges())+len(w.GetUnchanged()) == 0 {
		c.note("nothing to change")
	}
	return nil
}

func (c *call) warn(warnings []string) {
	for _, warning := range warnings {
		c.note("warning: %s", printable(warning))
	}
}

// printPlan prints what a write would do: as the difference that it makes, unless a
// format was asked for.
func (c *call) printPlan(f *format, w *adminv1.WriteResponse, from, to string) error {
	if f.is != asTable {
		return c.printWrite(f, w, true)
	}
	c.warn(w.GetWarnings())
	for _, change := range w.GetChanges() {
		if err := writeDifference(c.out, change, from, to); err != nil {
			return err
		}
	}
	c.note("%s would change; nothing was changed (dry run)", count(len(w.GetChanges()), "object"))
	return nil
}

// stateAfter adds to the line of a change what its action alone does not say.
func stateAfter(change *adminv1.Change) string {
	state := change.GetAfter().GetState()
	switch change.GetAction() {
	case "split":
		return splitsText(change.GetBefore().GetState().GetSplits(), state.GetSplits())
	case "drain", "undrain":
		if endpoints := state.GetDrainedEndpoints(); len(endpoints) > 0 && !state.GetDrained() {
			return ": no new RPCs to " + list(endpoints, "and")
		}
	}
	return ""
}

// splitsText is what rules are shared out as, of those that changed.
func splitsText(before, after []*adminv1.RuleSplit) string {
	var parts []string
	for _, split := range after {
		if !slices.ContainsFunc(before, func(old *adminv1.RuleSplit) bool { return proto.Equal(old, split) }) {
			parts = append(parts, fmt.Sprintf("rule %s %s", split.GetRule(), splitText(split)))
		}
	}
	for _, old := range before {
		if !slices.ContainsFunc(after, func(split *adminv1.RuleSplit) bool { return split.GetRule() == old.GetRule() }) {
			parts = append(parts, fmt.Sprintf("rule %s as declared", old.GetRule()))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, "; ")
}

// splitText is "cart-v1=90 cart-v2=10, x-tester: yes to cart-v2, sticky by x-user-id".
func splitText(split *adminv1.RuleSplit) string {
	var shares []string
	for _, share := range split.GetShares() {
		shares = append(shares, fmt.Sprintf("%s=%d", shortKey(share.GetBackend()), share.GetWeight()))
	}
	if len(shares) == 0 {
		shares = []string{"weights as declared"}
	}
	parts := []string{strings.Join(shares, " ")}
	for _, pin := range split.GetPins() {
		parts = append(parts, fmt.Sprintf("%s: %s to %s", pin.GetHeader(), pin.GetValue(), shortKey(pin.GetBackend())))
	}
	switch {
	case split.GetSticky() != "":
		parts = append(parts, "sticky by "+split.GetSticky())
	case split.GetTurns():
		parts = append(parts, "in turns")
	}
	if split.SpillOver != nil {
		if split.GetSpillOver() {
			parts = append(parts, "spills over")
		} else {
			parts = append(parts, "does not spill over")
		}
	}
	return strings.Join(parts, ", ")
}

// shortKey leaves the namespace out that everybody expects.
func shortKey(key string) string { return strings.TrimPrefix(key, defaultNamespace+"/") }

// who is "alice via cli".
func who(change *adminv1.Change) string {
	actor := change.GetActor()
	if actor == "" {
		actor = "-"
	}
	if change.GetVia() == "" || change.GetVia() == actor {
		return actor
	}
	return actor + " via " + change.GetVia()
}

// sentence tells of a change: "updated 5m ago by alice via cli: canary". What an
// object says of its last change has no action.
func (p *program) sentence(change *adminv1.Change) string {
	s := fmt.Sprintf("%s %s by %s", cmp.Or(doneWord(change.GetAction()), "changed"), p.ago(change.GetTime()), who(change))
	if change.GetReason() != "" {
		s += ": " + change.GetReason()
	}
	return printable(s)
}

// ownerText is "api", "file routes.yaml:3", or "peer routes.yaml:3" for a file of another
// gateway. What was declared by another gateway's API is everybody's, and "api", too.
func ownerText(owner *adminv1.Owner) string {
	if owner.GetKind() == adminv1.Owner_KIND_UNSPECIFIED {
		return "-"
	}
	if owner.GetKind() == adminv1.Owner_KIND_PEER && owner.GetFile() == "" {
		return enumWord(owner.GetKind().Descriptor(), adminv1.Owner_KIND_API.Number())
	}
	word := enumWord(owner.GetKind().Descriptor(), owner.GetKind().Number())
	return strings.TrimSpace(word + " " + owner.GetFile())
}

// ofFile tells whether a file declares an object, here or at another gateway: it is
// read-only until it is adopted.
func ofFile(owner *adminv1.Owner) bool {
	return owner.GetKind() == adminv1.Owner_KIND_FILE || owner.GetKind() == adminv1.Owner_KIND_PEER && owner.GetFile() != ""
}
