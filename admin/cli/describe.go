package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	adminv1 "sluice/admin/v1"
)

// describedChanges is how many of the last changes describe shows.
const describedChanges = 5

func (p *program) describeCommand() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:   "describe KIND NAME",
		Short: "Tell everything about one object",
		Long: `Tell what an object declares, what is in force of it and why, who owns it, and who
changed it last. Of a route it shows, for each rule, the share that was asked for
and the share that was seen in the last minute.`,
		Example: "  sluice describe route cart\n  sluice describe backend shop/cart-v1",
		Args:    wants(2, 2),
	}
	output := p.addFormat(cmd, false)
	addNamespace(cmd, &namespace, defaultNamespace)
	cmd.ValidArgsFunction = p.completeRefs(1)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		ref, err := parseRef(namespace, args)
		if err != nil {
			return err
		}
		got, err := ask(c.ctx, c.resources.Get, &adminv1.GetRequest{Ref: ref})
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, got)
		}
		past, err := c.past(&adminv1.HistoryRequest{Ref: ref, Limit: describedChanges})
		if err != nil {
			return err
		}
		d := &description{call: c, object: got.GetObject(), observed: got.GetObserved(), past: past.GetChanges()}
		return d.write()
	})
	return cmd
}

// description is one object on the way to the reader. It is gathered whole, so
// that a failure prints nothing by halves.
type description struct {
	*call
	object   *adminv1.Object
	observed []*adminv1.ObservedRule
	past     []*adminv1.Change

	manifest *yaml.Node
	page     strings.Builder
}

func (d *description) write() error {
	var err error
	if d.manifest, err = readManifest(d.object.GetManifest()); err != nil {
		return err
	}
	d.line("%s", refID(d.object.GetRef()))
	d.facts()
	d.conditions()
	switch d.object.GetRef().GetKind() {
	case grpcRoute, httpRoute:
		d.rules()
	case backend:
		if err = d.endpoints(); err != nil {
			return err
		}
		d.spec("endpoints")
	case schemaKind:
		d.schema()
		d.spec("backendRefs", "descriptorSet")
	default:
		d.spec()
	}
	d.changes()
	_, err = io.WriteString(d.out, d.page.String())
	return err
}

func (d *description) line(format string, args ...any) { fmt.Fprintf(&d.page, format+"\n", args...) }

func (d *description) table(t *table) {
	_ = t.write(&d.page, "  ") // into memory: it cannot fail
}

func (d *description) facts() {
	owner := ownerText(d.object.GetOwner())
	if ofFile(d.object.GetOwner()) {
		if node := d.object.GetOwner().GetNode(); node != "" {
			owner += " of node " + node
		}
		owner += "; read-only here until sluice adopt " + refArgs(d.object.GetRef())
	}
	t := &table{}
	t.add("Owner", owner)
	t.add("State", d.state())
	if hostnames := words(d.manifest, "spec", "hostnames"); len(hostnames) > 0 {
		t.add("Hostnames", strings.Join(hostnames, ", "))
	}
	t.add("Revision", d.object.GetRevision())
	if n := d.object.GetLost(); n > 0 {
		t.add("Conflict", fmt.Sprintf("another gateway changed it, too, and %s lost; see sluice conflicts show %s", lostText(n), refArgs(d.object.GetRef())))
	}
	t.add("Created", fmt.Sprintf("%s (%s)", d.clock(d.object.GetCreated()), d.ago(d.object.GetCreated())))
	d.table(t)
}

// lostText is "1 version is", or "2 versions are".
func lostText(n uint32) string {
	if n == 1 {
		return "1 version is"
	}
	return count(int(n), "version") + " are"
}

// state is what lies beside the declaration.
func (d *description) state() string {
	state := d.object.GetState()
	switch {
	case state.GetDisabled():
		return "disabled, out of the table; sluice route enable puts it back"
	case state.GetDrained():
		return "drained, gets no new RPCs; sluice backend undrain puts it back"
	case len(state.GetDrainedEndpoints()) > 0:
		return count(len(state.GetDrainedEndpoints()), "endpoint") + " drained"
	}
	return statusWord(d.object)
}

func (d *description) conditions() {
	d.line("\nConditions")
	t := &table{}
	for _, c := range d.object.GetConditions() {
		value := "no"
		if c.GetStatus() {
			value = "yes"
		}
		about := c.GetReason()
		if c.GetMessage() != "" {
			about += ": " + c.GetMessage()
		}
		t.add(c.GetType(), value, about)
	}
	d.table(t)
}

// rules shows of each rule what it matches and who gets its RPCs.
func (d *description) rules() {
	for i, rule := range items(d.manifest, "spec", "rules") {
		label := ruleLabel(rule, i)
		split := splitOf(d.object.GetState(), label)
		d.line("\nRule %s", label)
		t := &table{}
		for j, match := range matchTexts(rule) {
			t.add([]string{"Matches", "or"}[min(j, 1)], match)
		}
		if filters := filterTypes(rule); len(filters) > 0 {
			t.add("Filters", strings.Join(filters, ", "))
		}
		if split != nil {
			t.add("Split", d.splitSince(split)+"; back with sluice split "+d.ruleArg(label)+" --reset")
		}
		observed := slices.IndexFunc(d.observed, func(o *adminv1.ObservedRule) bool { return o.GetRule() == label })
		if observed < 0 {
			t.add("Backends", ruleShares(d.object.GetState(), label, rule))
			d.table(t)
			continue
		}
		d.table(t)
		d.table(sharesTable(d.observed[observed].GetShares(), true))
	}
}

// splitSince is a split and who made it.
func (d *description) splitSince(split *adminv1.RuleSplit) string {
	s := splitText(split)
	if split.GetSince() != nil {
		s += ", since " + d.clock(split.GetSince())
	}
	if split.GetBy() != "" {
		s += " by " + split.GetBy()
	}
	return s
}

// ruleArg is how a user names a rule of the route on the command line.
func (d *description) ruleArg(label string) string {
	return shortKey(refKey(d.object.GetRef())) + "/" + label
}

func splitOf(state *adminv1.State, label string) *adminv1.RuleSplit {
	for _, split := range state.GetSplits() {
		if split.GetRule() == label {
			return split
		}
	}
	return nil
}

// sharesTable sets what was asked for beside what was seen; declared says whether
// what the text has is known.
func sharesTable(shares []*adminv1.ObservedShare, declared bool) *table {
	var weights, rpcs uint64
	for _, s := range shares {
		weights += uint64(s.GetWeight())
		rpcs += s.GetRpcs()
	}
	header := []string{"BACKEND", "IN FORCE", "ASKED", "SEEN", "RPCS IN LAST MINUTE", "ENDPOINTS", "PROBLEM"}
	if declared {
		header = slices.Insert(header, 1, "DECLARED")
	}
	t := newTable(header...)
	for _, s := range shares {
		row := []string{
			shortKey(s.GetBackend()), fmt.Sprint(s.GetWeight()), percent(uint64(s.GetWeight()), weights),
			percent(s.GetRpcs(), rpcs), fmt.Sprint(s.GetRpcs()), fmt.Sprint(s.GetEndpoints()), s.GetProblem(),
		}
		if declared {
			row = slices.Insert(row, 1, fmt.Sprint(s.GetDeclaredWeight()))
		}
		t.add(row...)
	}
	return t
}

// percent is a part of a whole, "-" when there is no whole.
func percent(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
}

// matchTexts says in short which RPCs a rule takes.
func matchTexts(rule *yaml.Node) []string {
	var texts []string
	for _, match := range items(rule, "matches") {
		texts = append(texts, matchText(match))
	}
	if len(texts) == 0 {
		texts = []string{"every RPC"}
	}
	return texts
}

// filterTypes are what a rule does to requests beside sending them on.
func filterTypes(rule *yaml.Node) (types []string) {
	for _, filter := range items(rule, "filters") {
		types = append(types, word(filter, "type"))
	}
	return types
}

func matchText(match *yaml.Node) string {
	parts := []string{"every method"}
	if path := lookup(match, "path"); path != nil {
		parts[0] = strings.TrimPrefix(word(match, "method")+" "+pathText(path), " ")
	} else if method := lookup(match, "method"); method != nil {
		service, name := word(method, "service"), word(method, "method")
		parts[0] = orAny(service) + "/" + orAny(name)
		if word(method, "type") == "RegularExpression" {
			parts[0] += " (regular expression)"
		}
	}
	for _, h := range items(match, "headers") {
		equals := ": "
		if word(h, "type") == "RegularExpression" {
			equals = " ~ "
		}
		parts = append(parts, word(h, "name")+equals+word(h, "value"))
	}
	for _, q := range items(match, "queryParams") {
		equals := "="
		if word(q, "type") == "RegularExpression" {
			equals = " ~ "
		}
		parts = append(parts, "?"+word(q, "name")+equals+word(q, "value"))
	}
	return strings.Join(parts, ", ")
}

// pathText says which paths a match of an HTTPRoute takes.
func pathText(path *yaml.Node) string {
	value := word(path, "value")
	switch word(path, "type") {
	case "Exact":
		return value
	case "RegularExpression":
		return value + " (regular expression)"
	}
	if value == "/" {
		return "every path"
	}
	return value + " and below"
}

func orAny(s string) string {
	if s == "" {
		return "*"
	}
	return s
}

// endpoints shows how they are, as backend list does.
func (d *description) endpoints() error {
	all, err := ask(d.ctx, d.backends.ListEndpoints, &adminv1.ListEndpointsRequest{Backend: d.object.GetRef()})
	if err != nil {
		return err
	}
	d.line("\nEndpoints")
	t := newTable("ADDRESS", "SOURCE", "WEIGHT", "STATE", "WHY", "ACTIVE")
	for _, b := range all.GetBackends() {
		for _, e := range b.GetEndpoints() {
			t.add(e.GetAddress(), sourceWord(e), fmt.Sprint(e.GetWeight()), e.GetState(), e.GetWhy(), fmt.Sprint(e.GetActive()))
		}
	}
	if len(t.rows) == 1 {
		d.line("  none: every RPC is answered UNAVAILABLE")
		return nil
	}
	d.table(t)
	return nil
}

// schema shows what a Schema has in place of its bytes.
func (d *description) schema() {
	d.line("\nMethods, for %s", schemaBackends(d.manifest))
	set, err := readBase64(word(d.manifest, "spec", "descriptorSet"))
	if err != nil {
		d.line("  %s", printable(err.Error())) // of a later version
		return
	}
	d.table(methodsTable(set.methods(), false))
}

// spec shows the rest of what is declared, as it is written.
func (d *description) spec(without ...string) {
	spec := lookup(d.manifest, "spec")
	for _, key := range without {
		remove(spec, key)
	}
	if spec == nil || len(spec.Content) == 0 {
		return
	}
	written, err := marshalYAML(spec)
	if err != nil {
		return // it was just read, so it can be written
	}
	d.line("\nSpec")
	for line := range strings.Lines(string(written)) {
		d.page.WriteString("  " + line)
	}
}

func (d *description) changes() {
	if len(d.past) == 0 {
		return
	}
	d.line("\nLast changes")
	t := &table{}
	for _, change := range d.past {
		t.add(d.clock(change.GetTime()), doneWord(change.GetAction())+stateAfter(change), who(change), change.GetReason())
	}
	d.table(t)
}
