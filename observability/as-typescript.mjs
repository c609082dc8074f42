// Writes dashboards as TypeScript in which each part is a literal of its type in Grafana, for a compiler to judge.
// TypeScript refuses unknown members only in literals, and only where the type is not `Record<string, unknown>`, as that
// of a panel's options is in general; so every kind of panel is given the type of its own options.

import { readFileSync } from 'node:fs';

const PANELS = '@grafana/schema/dist/esm/raw/composable';

console.log(`
import type { Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel, VariableModel } from '@grafana/schema';
import type * as stat from '${PANELS}/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeseries from '${PANELS}/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type * as heatmap from '${PANELS}/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';

// What JSON has for a value of this type: the text of an enumeration, not its name.
type Written<T> = T extends string ? \`\${T}\` : T extends object ? { [K in keyof T]: Written<T[K]> } : T;

type Kind<Options, Custom> = Written<
  Omit<Panel, 'options' | 'fieldConfig' | 'targets'> & {
    options: Options;
    fieldConfig: Omit<FieldConfigSource, 'defaults'> & { defaults: Omit<FieldConfig, 'custom'> & { custom?: Custom } };
  }
> & { targets: (PrometheusQuery | InfluxQuery)[] };

interface Kinds {
  row: Written<Omit<RowPanel, 'panels'>> & { panels: [] };
  stat: Kind<stat.Options, never>;
  timeseries: Kind<timeseries.Options, timeseries.FieldConfig>;
  heatmap: Kind<heatmap.Options, heatmap.FieldConfig>;
}

// Grafana writes \`definition\` by itself, though its types do not know it.
type Board = Written<Omit<Dashboard, 'panels' | 'templating'>> & {
  templating: { list: (Written<VariableModel> & { definition?: string })[] };
};

// The package has no types for these two. Source: the files \`types.ts\` of Grafana's plugins prometheus and influxdb.
interface PrometheusQuery {
  refId: string;
  datasource: { type: 'prometheus'; uid: string };
  expr: string;
  legendFormat: string;
  range: boolean;
  instant?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
  editorMode: 'code' | 'builder';
}
interface InfluxQuery {
  refId: string;
  datasource: { type: 'influxdb'; uid: string };
  query: string;
  rawQuery: boolean;
  resultFormat: 'time_series' | 'table' | 'logs';
  alias?: string;
}
`);
process.argv.slice(2).forEach((file, index) => {
  const { panels, ...dashboard } = JSON.parse(readFileSync(file, 'utf8'));
  console.log(`// ${file}`);
  console.log(`export const d${index}: Board = ${JSON.stringify(dashboard)};`);
  for (const panel of panels) {
    console.log(`export const d${index}_${panel.id}: Kinds['${panel.type}'] = ${JSON.stringify(panel)};`);
  }
});
