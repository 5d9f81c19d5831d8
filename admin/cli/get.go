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

func (p *program) getCommand() *cobra.Command {
	var namespace string
	var noStatus bool
	cmd := &cobra.Command{
		Use:   "get [KIND [NAME...]]",
		Short: "Print routes, backends, policies and schemas",
		Long: `Print objects: of all kinds, of one, or those that are named. A KIND is route,
httproute, backend, policy or schema, also in full (GRPCRoute) and in the plural; or
registration, which no manifest declares, and which is not among all.

What -o yaml and -o json print, sluice apply takes again: it ignores the status, and
refuses the object when it was changed since, by its metadata.resourceVersion.`,
		Example: "  sluice get routes\n  sluice get backend cart-v1 -o yaml\n  sluice get -o yaml --no-status > everything.yaml",
		Args:    wants(0, -1),
	}
	output := p.addFormat(cmd, true)
	addNamespace(cmd, &namespace, "all")
	cmd.Flags().BoolVar(&noStatus, "no-status", false, "print only what is declared, for a file to keep")
	cmd.ValidArgsFunction = p.completeRefs(-1)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		kind, err := kindOf(args)
		if err != nil {
			return err
		}
		objects, err := c.find(kind, namespace, args)
		if err != nil {
			return err
		}
		switch output.is {
		case asJSON, asYAML:
			if len(args) == 2 && output.is == asJSON {
				return c.printObject(output, objects[0], !noStatus)
			}
			return c.printObjects(output, objects, !noStatus)
		case asName:
			return c.printNames(objects)
		}
		return c.printTable(kind, objects)
	})
	return cmd
}

func addNamespace(cmd *cobra.Command, namespace *string, otherwise string) {
	cmd.Flags().StringVarP(namespace, "namespace", "n", "", "`namespace`; "+otherwise+" unless given")
}

// kindOf is the kind that the first argument names, empty for all.
func kindOf(args []string) (string, error) {
	if len(args) == 0 || len(args) == 1 && args[0] == "all" {
		return "", nil
	}
	return parseKind(args[0])
}

// find returns the objects that args name, or all of the kind.
func (c *call) find(kind, namespace string, args []string) ([]*adminv1.Object, error) {
	if len(args) < 2 {
		all, err := ask(c.ctx, c.resources.List, &adminv1.ListRequest{Kind: kind, Namespace: namespace})
		if err != nil || kind != "" {
			return all.GetObjects(), err
		}
		return slices.DeleteFunc(all.GetObjects(), func(o *adminv1.Object) bool { return o.GetRef().GetKind() == registrationKind }), nil
	}
	var objects []*adminv1.Object
	for _, name := range args[1:] {
		ref, err := parseName(kind, namespace, name)
		if err != nil {
			return nil, err
		}
		one, err := ask(c.ctx, c.resources.Get, &adminv1.GetRequest{Ref: ref})
		if err != nil {
			return nil, err
		}
		objects = append(objects, one.GetObject())
	}
	return objects, nil
}

func (c *call) printObject(f *format, o *adminv1.Object, withStatus bool) error {
	n, err := objectView(o)
	if err != nil {
		return err
	}
	if !withStatus {
		bare(n, o.GetCreated())
	}
	return c.printNode(f, n)
}

// printNames has a line for each object.
func (c *call) printNames(objects []*adminv1.Object) error {
	for _, o := range objects {
		if _, err := io.WriteString(c.out, refID(o.GetRef())+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// columns are what a table says of the objects of a kind, beside what it says of
// every object.
var columns = map[string]struct {
	header []string
	cells  func(o *adminv1.Object, manifest *yaml.Node) []string
}{
	"":        {nil, func(*adminv1.Object, *yaml.Node) []string { return nil }},
	grpcRoute: {[]string{"HOSTNAMES", "BACKENDS"}, routeCells},
	httpRoute: {[]string{"HOSTNAMES", "BACKENDS"}, routeCells},
	backend:   {[]string{"ENDPOINTS", "PROTOCOL"}, backendCells},
	rpcPolicy: {[]string{"TARGETS"}, policyCells},

	schemaKind: {[]string{"BACKENDS", "SERVICES"}, schemaCells},

	registrationKind: {[]string{"BACKEND", "ADDRESS", "WEIGHT", "ZONE", "LEASE"}, registrationCells},
}

func (c *call) printTable(kind string, objects []*adminv1.Object) error {
	if len(objects) == 0 {
		c.note("there are none")
		return nil
	}
	of := columns[kind]
	t := newTable(slices.Concat(nameCells(kind, "KIND", "NAME"), of.header, []string{"OWNER", "STATUS", "CHANGED"})...)
	for _, o := range objects {
		manifest, err := readManifest(o.GetManifest())
		if err != nil {
			return err
		}
		t.add(slices.Concat(nameCells(kind, o.GetRef().GetKind(), refKey(o.GetRef())), of.cells(o, manifest),
			[]string{ownerText(o.GetOwner()), statusWord(o), c.ago(o.GetLastChange().GetTime())})...)
	}
	return t.write(c.out, "")
}

// nameCells has the kind in it when objects of several are listed.
func nameCells(listed, kind, name string) []string {
	if listed == "" {
		return []string{kind, name}
	}
	return []string{name}
}

// statusWord is the first thing that a person should know of an object.
func statusWord(o *adminv1.Object) string {
	switch state := o.GetState(); {
	case state.GetDisabled():
		return "disabled"
	case state.GetDrained():
		return "drained"
	}
	for _, condition := range o.GetConditions() {
		if !condition.GetStatus() {
			return fmt.Sprintf("not %s: %s", condition.GetType(), condition.GetReason())
		}
	}
	return "in force"
}

func routeCells(o *adminv1.Object, manifest *yaml.Node) []string {
	hostnames := "every"
	if names := words(manifest, "spec", "hostnames"); len(names) > 0 {
		hostnames = brief(names, ",")
	}
	var shares []string
	for i, rule := range items(manifest, "spec", "rules") {
		shares = append(shares, ruleShares(o.GetState(), ruleLabel(rule, i), rule))
	}
	return []string{hostnames, brief(shares, " | ")}
}

// ruleShares is who gets a rule's RPCs: by its split, or as it is declared.
func ruleShares(state *adminv1.State, label string, rule *yaml.Node) string {
	for _, split := range state.GetSplits() {
		if split.GetRule() == label && len(split.GetShares()) > 0 {
			text, _, _ := strings.Cut(splitText(split), ",")
			return text
		}
	}
	refs := items(rule, "backendRefs")
	if len(refs) == 1 {
		return word(refs[0], "name")
	}
	var shares []string
	for _, ref := range refs {
		shares = append(shares, word(ref, "name")+"="+word(ref, "weight"))
	}
	return strings.Join(shares, " ")
}

// ruleLabel is the rule's name, or its number.
func ruleLabel(rule *yaml.Node, i int) string {
	if name := word(rule, "name"); name != "" {
		return name
	}
	return fmt.Sprint(i)
}

func backendCells(o *adminv1.Object, manifest *yaml.Node) []string {
	endpoints := items(manifest, "spec", "endpoints")
	cell := fmt.Sprint(len(endpoints))
	if n := len(o.GetState().GetDrainedEndpoints()); n > 0 {
		cell += fmt.Sprintf(" (%d drained)", n)
	}
	for _, source := range []string{"dns", "registration"} {
		if lookup(manifest, "spec", source) != nil {
			cell += ", " + source
		}
	}
	return []string{cell, word(manifest, "spec", "protocol")}
}

func registrationCells(_ *adminv1.Object, manifest *yaml.Node) []string {
	var cells []string
	for _, field := range []string{"backend", "address", "weight", "zone", "lease"} {
		cells = append(cells, word(manifest, "spec", field))
	}
	return cells
}

func policyCells(_ *adminv1.Object, manifest *yaml.Node) []string {
	var targets []string
	for _, target := range items(manifest, "spec", "targetRefs") {
		name := word(target, "kind") + " " + word(target, "name")
		if section := word(target, "sectionName"); section != "" {
			name += "/" + section
		}
		targets = append(targets, name)
	}
	return []string{brief(targets, ", ")}
}

func schemaCells(_ *adminv1.Object, manifest *yaml.Node) []string {
	services := "?"
	if set, err := readBase64(word(manifest, "spec", "descriptorSet")); err == nil { // else of a later version
		services = brief(set.services(), ", ")
	}
	return []string{schemaBackends(manifest), services}
}

// schemaBackends are those that a Schema is for.
func schemaBackends(manifest *yaml.Node) string {
	var names []string
	for _, ref := range items(manifest, "spec", "backendRefs") {
		name := word(ref, "name")
		if namespace := word(ref, "namespace"); namespace != "" && namespace != word(manifest, "metadata", "namespace") {
			name = namespace + "/" + name
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "every other"
	}
	return brief(names, ", ")
}

// words are the scalars of the list at keys.
func words(n *yaml.Node, keys ...string) []string {
	var found []string
	for _, item := range items(n, keys...) {
		found = append(found, item.Value)
	}
	return found
}

// brief joins the first few and counts the rest.
func brief(words []string, separator string) string {
	const most = 3
	if len(words) <= most {
		return strings.Join(words, separator)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:most], separator), len(words)-most)
}
