set terminal svg size 1240,780 dynamic font 'sans,13' background 'white'
set output 'frontier.svg'
set multiplot layout 2,2 title 'smollm2, 0 % sparsity, groups of 64, calibrated on wikitext2.calib.txt' noenhanced
set logscale y
unset mytics
set grid back lc rgb '#dddddd'
set key outside right top vertical noenhanced samplen 1.5
set xlabel 'stored bits per weight'
set format y '%g'
$data_0_0 << EOD
3.375 26.44520805
4.375 23.29047603
EOD
$data_0_1 << EOD
2.88671875 32.97239073
3.38671875 29.42049879
3.88671875 27.45588818
4.38671875 26.34467048
EOD
$data_0_2 << EOD
2.88671875 33.41568736
3.386487269 26.38303777
3.88671875 24.51409868
4.384924769 23.27625243
EOD
$data_0_3 << EOD
2.886516204 31.38257971
3.386584925 25.63930855
3.886487269 23.70399035
4.38655599 22.99148721
EOD
$data_1_0 << EOD
3.375 62.52425158
4.375 49.93660553
EOD
$data_1_1 << EOD
2.88671875 87.96900069
3.38671875 73.73129594
3.88671875 65.23830675
4.38671875 59.51797434
EOD
$data_1_2 << EOD
2.88671875 85.72144642
3.386487269 59.19443233
3.88671875 53.24236245
4.384924769 49.0027495
EOD
$data_1_3 << EOD
2.886516204 78.23715425
3.386584925 57.88874104
3.886487269 51.22916873
4.38655599 47.76211384
EOD
$data_2_0 << EOD
3.375 49.63051395
4.375 32.02921278
EOD
$data_2_1 << EOD
2.88671875 97.46666727
3.38671875 66.92895342
3.88671875 53.04511437
4.38671875 47.30627677
EOD
$data_2_2 << EOD
2.88671875 97.03169438
3.386487269 47.45035569
3.88671875 38.83663063
4.384924769 31.68412855
EOD
$data_2_3 << EOD
2.886516204 73.96605569
3.386584925 43.22152221
3.886487269 34.95266151
4.38655599 30.62487666
EOD
$data_3_0 << EOD
3.375 0.2275273135
4.375 0.0523955584
EOD
$data_3_1 << EOD
2.88671875 0.4743826639
3.38671875 0.3376147618
3.88671875 0.285305211
4.38671875 0.2151075236
EOD
$data_3_2 << EOD
2.88671875 0.4774825072
3.386487269 0.2029112291
3.88671875 0.1246716954
4.384924769 0.04947153219
EOD
$data_3_3 << EOD
2.886516204 0.3856709897
3.386584925 0.1609238667
3.886487269 0.08745189356
4.38655599 0.03563303572
EOD
set yrange [21.66287711:34.41815798]
set ytics (25, 30)
set ylabel 'perplexity on wikitext2' noenhanced
plot $data_0_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_0_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_0_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_0_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 22.31276342 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [43.85950676:90.60807071]
set ytics (45, 50, 55, 60, 65, 70, 75, 80, 85, 90)
set ylabel 'perplexity on ptb' noenhanced
plot $data_1_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_1_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_1_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_1_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 45.17529196 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [26.67073895:100.3906673]
set ytics (30, 40, 50, 70, 100)
set ylabel 'perplexity on c4' noenhanced
plot $data_2_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_2_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_2_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_2_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 27.47086112 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [0.03459518031:0.4918069824]
set ytics (0.05, 0.1, 0.2)
set ylabel 'KL from dense, nats per token' noenhanced
plot $data_3_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_3_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_3_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_3_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model'
unset multiplot
