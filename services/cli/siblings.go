package cli

import (
	"github.com/spf13/cobra"

	"github.com/nearside/nearside/services/demo"
	"github.com/nearside/nearside/services/node"
	"github.com/nearside/nearside/services/shop"
)

// siblingCommands returns the commands of the other packages of this module (node, demo,
// shop). They carry their own flags and read their own environment; see addSibling.
func siblingCommands() []*cobra.Command {
	return append(node.Commands(), demo.Command(), shop.Command())
}
