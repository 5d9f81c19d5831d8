package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

func (p *program) schemaCommand() *cobra.Command {
	return group(
		&cobra.Command{Use: "schema", Short: "Tell the gateway what methods backends have, and see what it knows"},
		p.schemaPushCommand(), p.schemaListCommand(), p.schemaShowCommand(), p.schemaDeleteCommand(),
	)
}

func (p *program) schemaPushCommand() *cobra.Command {
	var w written
	push := &pushing{}
	cmd := &cobra.Command{
		Use:   "push FILE|DIR... --name NAME",
		Short: "Push descriptors of services",
		Long: `Push what services and messages there are, for backends without reflection: a
descriptor set, as protoc -o and buf build -o write it (binary, or .json), - for one
from standard input, or .proto files and folders of them, with what they import.

It is kept as an object of the kind Schema, with history and rollback. It is for the
backends that are named, before what their reflection says, or for all backends of
which nothing better is known. A push without --backend keeps what was named before;
--backend '' takes it back.`,
		Example: "  sluice schema push shop.binpb --name shop --backend cart-v1 --backend cart-v2\n  sluice schema push proto/ -I proto -I third_party --name shop --dry-run",
		Args:    wants(1, -1),
	}
	flags := cmd.Flags()
	flags.StringVar(&push.name, "name", "", "`NAME` of the Schema, or NAMESPACE/NAME")
	flags.StringArrayVar(&push.backends, "backend", nil, "`NAME` of a backend that it is for; may be repeated")
	flags.StringArrayVarP(&push.imports, "import", "I", nil, "`folder` below which imports of .proto files are; may be repeated")
	addNamespace(cmd, &push.namespace, defaultNamespace)
	w.addReason(cmd)
	w.addDryRun(cmd)
	w.addUnresolved(cmd)
	p.addWait(cmd, &w.peers)
	output := p.addFormat(cmd, true)
	p.complete(cmd, "backend", p.completeFlag(&push.namespace, backend))
	p.complete(cmd, "name", p.completeFlag(&push.namespace, schemaKind))
	cmd.RunE = p.remote(func(c *call, args []string) error {
		push.call, push.named = c, cmd.Flags().Changed("backend")
		return push.run(args, &w, output)
	})
	return cmd
}

// pushing is one push.
type pushing struct {
	*call
	namespace, name   string
	backends, imports []string
	named             bool // backends were given, or none in so many words
}

func (p *pushing) run(files []string, w *written, output *format) error {
	if p.name == "" {
		return usageErrorf("under what name? Give one with --name NAME")
	}
	ref, err := parseName(schemaKind, p.namespace, p.name)
	if err != nil {
		return err
	}
	descriptors, err := p.read(files)
	if err != nil {
		return err
	}
	before, err := p.current(ref)
	if err != nil {
		return err
	}
	manifest, err := p.manifest(ref, before, descriptors)
	if err != nil {
		return err
	}
	response, err := ask(p.ctx, p.resources.Apply, &adminv1.ApplyRequest{
		Text: manifest, File: files[0], DryRun: w.dryRun, Reason: w.reason, AllowUnresolved: w.unresolved, Wait: w.peers.is,
	})
	if faults, ok := detailOf[*adminv1.Faults](err); ok {
		return p.faults(ofDescriptors(faults))
	}
	if err != nil {
		return err
	}
	if err := p.printWrite(output, response, w.dryRun); err != nil || output.is != asTable {
		return err
	}
	return p.tell(before, descriptors)
}

// ofDescriptors takes out of faults what speaks of the manifest, which nobody wrote.
func ofDescriptors(faults *adminv1.Faults) *adminv1.Faults {
	for _, f := range faults.GetFaults() {
		f.Line, f.Column = 0, 0
		if f.GetField() == "spec.descriptorSet" {
			f.Field = ""
		}
	}
	return faults
}

// current is the manifest of the Schema as it is, nil when there is none.
func (p *pushing) current(ref *adminv1.Ref) (*yaml.Node, error) {
	all, err := ask(p.ctx, p.resources.List, &adminv1.ListRequest{Kind: schemaKind, Namespace: ref.GetNamespace()})
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(all.GetObjects(), func(o *adminv1.Object) bool { return o.GetRef().GetName() == ref.GetName() })
	if at < 0 {
		return nil, nil
	}
	return readManifest(all.GetObjects()[at].GetManifest())
}

// manifest is the Schema as it is to be. What else it declares stays as it was, and it
// is refused when somebody was faster.
func (p *pushing) manifest(ref *adminv1.Ref, before *yaml.Node, descriptors *descriptorSet) (string, error) {
	n := mapping()
	set(n, "apiVersion", text(store.SchemaVersion))
	set(n, "kind", text(schemaKind))
	metadata := mapping()
	if old := lookup(before, "metadata"); old != nil {
		metadata = old
	}
	set(metadata, "name", text(ref.GetName()))
	set(metadata, "namespace", text(ref.GetNamespace()))
	spec := mapping()
	backends := lookup(before, "spec", "backendRefs")
	if p.named {
		var err error
		if backends, err = p.backendRefs(ref); err != nil {
			return "", err
		}
	}
	if backends != nil && len(backends.Content) > 0 {
		set(spec, "backendRefs", backends)
	}
	set(spec, "descriptorSet", text(descriptors.base64()))
	set(n, "metadata", metadata)
	set(n, "spec", spec)
	return string(appendJSON(nil, n)), nil
}

func (p *pushing) backendRefs(ref *adminv1.Ref) (*yaml.Node, error) {
	refs := sequence()
	for _, name := range p.backends {
		if name == "" {
			continue
		}
		namespace := ref.GetNamespace()
		if strings.Contains(name, "/") {
			namespace = ""
		}
		of, err := parseName(backend, namespace, name)
		if err != nil {
			return nil, err
		}
		one := mapping()
		set(one, "namespace", text(of.GetNamespace()))
		set(one, "name", text(of.GetName()))
		refs.Content = append(refs.Content, one)
	}
	return refs, nil
}

// tell says what was pushed, and what is different from what was there.
func (p *pushing) tell(before *yaml.Node, descriptors *descriptorSet) error {
	fmt.Fprintf(p.out, "%s, %s\n", count(len(descriptors.services()), "service"), count(len(descriptors.methods()), "method"))
	old := &descriptorSet{}
	if encoded := word(before, "spec", "descriptorSet"); encoded != "" {
		var err error
		if old, err = readBase64(encoded); err != nil {
			return err
		}
	}
	for _, line := range descriptors.changes(old) {
		fmt.Fprintln(p.out, "  "+printable(line))
	}
	return nil
}

func (p *program) schemaListCommand() *cobra.Command {
	var learn bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Tell where descriptors come from",
		Long: `Tell, for each backend, where the gateway knows its methods from: its reflection, a
Schema that was pushed, or nothing yet. A backend is asked when the first request needs
it, or with --learn.`,
		Args: wants(0, 0),
	}
	output := p.addFormat(cmd, false)
	cmd.Flags().BoolVar(&learn, "learn", false, "ask the backends that have not told yet")
	cmd.RunE = p.remote(func(c *call, _ []string) error {
		all, err := ask(c.ctx, c.schemas.ListSchemas, &adminv1.ListSchemasRequest{Learn: learn})
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, all)
		}
		if len(all.GetSources()) == 0 {
			c.note("no backend has told of its methods yet, and no Schema was pushed; --learn asks the backends")
			return nil
		}
		return c.printSources(all.GetSources())
	})
	return cmd
}

func (c *call) printSources(sources []*adminv1.SchemaSource) error {
	t := newTable("BACKEND", "FROM", "METHODS", "LEARNT", "PROBLEM")
	for _, s := range sources {
		of := "every other"
		if s.GetBackend() != "" {
			of = shortKey(s.GetBackend())
		}
		learnt := "never"
		if s.GetLearnt() != nil {
			learnt = c.ago(s.GetLearnt())
		}
		t.add(of, sourceText(s), fmt.Sprint(s.GetMethods()), learnt, s.GetProblem())
	}
	return t.write(c.out, "")
}

// sourceText is "reflection v1" or "Schema default/shop".
func sourceText(s *adminv1.SchemaSource) string {
	if s.GetObject() != nil {
		return refID(s.GetObject())
	}
	return strings.TrimSpace("reflection " + s.GetVersion())
}

func (p *program) schemaShowCommand() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "List the methods of a Schema",
		Args:  wants(1, 1),
	}
	output := p.addFormat(cmd, false)
	addNamespace(cmd, &namespace, defaultNamespace)
	cmd.ValidArgsFunction = p.completeNames(schemaKind, &namespace)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		ref, err := parseName(schemaKind, namespace, args[0])
		if err != nil {
			return err
		}
		got, err := ask(c.ctx, c.resources.Get, &adminv1.GetRequest{Ref: ref})
		if err != nil {
			return err
		}
		manifest, err := readManifest(got.GetObject().GetManifest())
		if err != nil {
			return err
		}
		descriptors, err := readBase64(word(manifest, "spec", "descriptorSet"))
		if err != nil {
			return err
		}
		if output.is != asTable {
			return c.structured(output, &adminv1.ListMethodsResponse{Methods: descriptors.methods()})
		}
		return c.printMethods(descriptors.methods(), false)
	})
	return cmd
}

func (p *program) schemaDeleteCommand() *cobra.Command {
	var w written
	var namespace string
	cmd := &cobra.Command{
		Use:   "delete NAME...",
		Short: "Forget Schemas that were pushed",
		Args:  wants(1, -1),
	}
	w.addReason(cmd)
	w.addDryRun(cmd)
	p.addWait(cmd, &w.peers)
	addNamespace(cmd, &namespace, defaultNamespace)
	output := p.addFormat(cmd, true)
	cmd.ValidArgsFunction = p.completeNames(schemaKind, &namespace)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		refs, err := c.named(namespace, nil, append([]string{schemaKind}, args...))
		if err != nil {
			return err
		}
		return c.deleteEach(refs, &adminv1.DeleteRequest{}, &w, output)
	})
	return cmd
}
